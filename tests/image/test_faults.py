"""Faults of a whole ``envforge build``, each staged for real: its exit, what is left, the next build.

The table of all faults, with the tests of those that are staged elsewhere: docs/faults.md.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator

import pytest
from fault_parts import PLAN, Bench, Place, ended, only_cache, open_bench, wait_for
from image_parts import processes_with, wait_until
from sources_site import Answer, Site, open_site, send, send_and_break

from envforge.image.engine import Engine
from envforge.image.lock import load_lock

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PIP_STEP = "RUN --mount=type=bind,source=inputs/wheels"
"""The longest step: 1.2 GB are unpacked."""
APT_STEP = "RUN apt-get update  && apt-get install -y --no-install-recommends python3-pip"
"""The one before it."""


@pytest.fixture(scope="module")
def bench(engine: Engine, tiny: str) -> Iterator[Bench]:
    with open_bench(engine, tiny) as opened:
        yield opened


@pytest.fixture
def place(bench: Bench) -> Place:
    """The bench's place without a lock: there is something to do."""
    bench.place.lock.unlink(missing_ok=True)
    return bench.place


def goes_on(place: Place, **environment: str) -> None:
    """The next build, without the fault, comes to its end; nothing but its outcome is there."""
    answer = place.build(**environment)
    assert answer.code == 0, answer.stderr
    lock = load_lock(place.lock)
    things = place.things()
    assert f"image {lock.image}" in things
    assert not [thing for thing in things if thing.startswith(("container", "volume"))]
    assert not [thing for thing in things if "-unverified" in thing]


def was_cached(place: Place, step: str) -> bool:
    """Whether the newest build took a step from an earlier one's work."""
    log = place.newest_log()
    number = re.search(rf"^#(\d+) \[[^\]]+\] {re.escape(step)}", log, re.MULTILINE)
    assert number, f"no {step} in {log}"
    return f"\n#{number[1]} CACHED" in log


@pytest.mark.timeout(2400)
def test_a_build_that_meets_one_fault_after_another_comes_to_its_end(
    bench: Bench, place: Place
) -> None:
    """Each goes on where the one before was stopped: one build's work is done in all."""
    an_archive_out_of_reach(place)
    a_client_killed_in_mid_build(place)
    a_full_disk_under_the_engine(bench, place)
    an_engine_killed_in_mid_build(bench, place)
    goes_on(place)
    assert was_cached(place, APT_STEP)


def an_archive_out_of_reach(place: Place) -> None:
    before = place.things()
    answer = place.build(*PLAN, "--archive", "http://127.0.0.1:9/debian")
    assert answer.code == 5, answer.stderr
    assert "error: source-unreachable: no archive with debian bullseye is in reach" in answer.stderr
    assert "  http://127.0.0.1:9/debian: out of reach" in answer.stderr
    assert "\nthe build context lies in" in answer.stderr
    assert [thing for thing in only_cache(before, place.things()) if "image" in thing] == []


def a_client_killed_in_mid_build(place: Place) -> None:
    before = place.things()
    process = place.start()
    wait_for(process, PIP_STEP)
    process.kill()
    assert ended(process).code == -9
    assert wait_until(lambda: not processes_with(f"--iidfile={place.root}"), 300)
    only_cache(before, place.things())


def a_full_disk_under_the_engine(bench: Bench, place: Place) -> None:
    before = place.things()
    try:
        bench.disk.fill(leave_mib=300)
        answer = place.build()
    finally:
        bench.disk.free()
    assert answer.code == 7, answer.stderr
    assert "error: disk-full: the engine's disk is full: the build failed in step" in answer.stderr
    assert "no space left on device" in answer.stderr.lower()
    assert "hint: docker system df" in answer.stderr
    only_cache(before, place.things())
    assert was_cached(place, APT_STEP)


def an_engine_killed_in_mid_build(bench: Bench, place: Place) -> None:
    before = place.things()
    process = place.start()
    heard = wait_for(process, PIP_STEP)
    bench.engine.kill()
    answer = ended(process, heard)
    assert answer.code == 7, answer.stderr
    assert "error: build-failed: the container engine stopped answering in step" in answer.stderr
    assert "hint: start the engine again (sudo systemctl start docker)" in answer.stderr
    bench.engine.start().close()
    only_cache(before, place.things())


def test_a_full_disk_under_the_cache_is_exit_7_and_room_is_enough(
    bench: Bench, place: Place
) -> None:
    """Envforge's own cache lies on the full disk, as the engine's data."""
    before = place.things()
    cache = bench.disk.root / "cache"
    cache.mkdir()
    try:
        bench.disk.fill(leave_mib=0)
        answer = place.build(XDG_CACHE_HOME=str(cache))
    finally:
        bench.disk.free()
    assert answer.code == 7, answer.stderr
    assert "error: disk-full: no room is left on this machine's disk" in answer.stderr
    assert "hint: make room, or choose other places: XDG_CACHE_HOME, TMPDIR" in answer.stderr
    only_cache(before, place.things())
    goes_on(place)


def test_a_client_killed_while_it_verifies_leaves_a_container_that_the_next_removes(
    place: Place,
) -> None:
    """Nobody is left to remove it: it is the one thing that is no cache."""
    before = place.things()
    process = place.start()
    wait_for(process, "-> verify")
    assert wait_until(lambda: bool(place.docker("ps", "--quiet")))
    process.kill()
    assert ended(process).code == -9
    new = (thing for thing in place.things() - before if " " in thing)
    left = sorted(thing for thing in new if "envforge/base" not in thing)
    assert [thing.partition(" ")[0] for thing in left] == ["container", "image"]
    assert left[1].endswith("-unverified")
    goes_on(place)


def test_of_two_builds_of_one_plan_at_once_the_second_waits_and_finds_the_work_done(
    place: Place,
) -> None:
    both = [place.start(), place.start()]
    answers = [ended(process) for process in both]
    assert [answer.code for answer in answers] == [0, 0], answers
    waiting = "!! another build of this plan is running: waiting for it"
    (second,) = [answer for answer in answers if waiting in answer.stderr]
    (first,) = [answer for answer in answers if answer is not second]
    assert f"{load_lock(place.lock).image}: already built and verified" in second.stdout
    assert "locked in envforge.lock" in first.stdout
    assert "->" not in second.stderr.partition(waiting)[2], "no step was begun"


def test_a_lock_edited_by_hand_is_refused_or_told_and_written_anew(place: Place) -> None:
    goes_on(place)
    good = place.lock.read_text()
    place.lock.write_text(good.replace('"stage": "runtime"', '"stage": "x"'))
    refused = place.build("--locked")
    assert refused.code == 3, refused.stderr
    fault = "envforge.lock is not as it must be"
    assert f"error: bad-document: {fault}" in refused.stderr
    assert "`$.stage`" in refused.stderr
    answer = place.build()
    assert answer.code == 0, answer.stderr
    (told,) = [line for line in answer.stderr.splitlines() if line.startswith("!! ")]
    assert told.startswith(f"!! {fault}; ")
    assert "`$.stage`" in told
    assert load_lock(place.lock).plan == json.loads(good)["plan"]


def test_a_package_edited_into_a_lock_is_found_though_the_image_is_there(place: Place) -> None:
    goes_on(place)
    edited = json.loads(place.lock.read_text())
    name, _, version = edited["packages"][0].partition("=")
    edited["packages"][0] = f"{name}=0"
    place.lock.write_text(json.dumps(edited))
    refused = place.build("--locked")
    assert refused.code == 8, refused.stderr
    assert f"  package {name}: locked 0, now {version}" in refused.stderr
    assert json.loads(place.lock.read_text()) == edited, "the lock is left as it was"
    answer = place.build()
    assert answer.code == 0, answer.stderr
    assert "was changed by hand: its image is asked anew" in answer.stderr
    assert f"{name}={version}" in load_lock(place.lock).packages


@pytest.fixture
def index() -> Iterator[Site]:
    """A package index that a user's pip asks."""
    with open_site() as site:
        yield site


def ask_only(site: Site) -> dict[str, str]:
    """Return what makes ``site`` pip's one index."""
    return {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{site.address}/simple/",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "NO_PROXY": "127.0.0.1",
    }


def whole(data: bytes) -> Answer:
    return functools.partial(send, data=data)


FAULTY = {
    "another file": (
        lambda data: whole(data[:-1] + b"!"),
        "error: hash-mismatch: {name} does not have the pinned hash; nothing of it was kept",
    ),
    "half a file": (
        lambda data: functools.partial(send_and_break, data=data, upto=len(data) // 2),
        "error: source-unreachable: cannot fetch {name}: the package index is out of reach",
    ),
    "a login page": (
        lambda _: functools.partial(
            send, data=b"<!DOCTYPE html><html>please sign in</html>", kind="text/html"
        ),
        "error: hash-mismatch: {name} does not have the pinned hash; nothing of it was kept",
    ),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_an_index_that_gives_something_else_is_exit_5_and_the_right_file_is_enough(
    bench: Bench, place: Place, index: Site, fault: str
) -> None:
    answer_with, error = FAULTY[fault]
    wheel = min(bench.prepared.plan.wheels, key=lambda wheel: wheel.size_bytes)
    stored = place.store.path_of(wheel.sha256)
    data = stored.read_bytes()
    stored.unlink()
    page = (
        f'<!DOCTYPE html><html><body><a href="/files/{wheel.name}">{wheel.name}</a></body></html>'
    )
    index.serve(f"/simple/{wheel.distribution}/", page.encode(), "text/html")
    index.answers[f"/files/{wheel.name}"] = answer_with(data)
    before = place.things()
    answer = place.build(**ask_only(index))
    assert answer.code == 5, answer.stderr
    assert error.format(name=wheel.name) in answer.stderr
    left = only_cache(before, place.things())
    assert [thing for thing in left if "/sha256/" in thing or "/partial/" in thing] == []
    index.answers[f"/files/{wheel.name}"] = whole(data)
    goes_on(place, **ask_only(index))
