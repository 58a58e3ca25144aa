"""What is added to a Dockerfile on its way to a builder: certificates, and digests for podman."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from envforge.events import Event
from envforge.image.engine.dockerfile import with_ca_bundle, with_input_digests
from envforge.image.engine.podman_builder import PodmanProgress

TEXT = """\
# RUN is only spoken of here.
FROM base AS wheels
RUN apt-get update \\
 # a comment between
 && apt-get install -y python3-pip
COPY edit.py /
RUN --mount=type=bind,source=wheels,target=/wheels \\
    --mount=type=bind,source=one.txt,target=/one.txt \\
    install /wheels
RUN --mount=type=cache,id=ccache,target=/ccache make
FROM base AS runtime
RUN --mount=type=bind,from=wheels,source=/site,target=/site cp /site /here
CMD ["RUN"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/torch.whl").write_text("1.0.1")
    (tmp_path / "one.txt").write_text("one")
    (tmp_path / "edit.py").write_text("edit")
    return tmp_path


def digests(context: Path) -> list[str]:
    return re.findall(
        r"^ARG ENVFORGE_INPUTS=(\w{64})$", with_input_digests(TEXT, context), re.MULTILINE
    )


def test_every_run_sees_the_certificates_and_nothing_else_changes() -> None:
    mount = (
        "RUN --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt,mode=0444 "
    )
    adapted = with_ca_bundle(TEXT)
    assert adapted.count(mount) == 4
    assert adapted.replace(mount, "RUN ") == TEXT


def test_only_what_mounts_files_gets_their_digest_before_it(context: Path) -> None:
    adapted = with_input_digests(TEXT, context)
    assert re.sub(r"^ARG ENVFORGE_INPUTS=\w{64}\n", "", adapted, flags=re.MULTILINE) == TEXT
    following = re.findall(r"^ARG ENVFORGE_INPUTS=\w{64}\n(.*)$", adapted, re.MULTILINE)
    assert [line.split(",")[1] for line in following] == ["source=wheels", "from=wheels"]


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ("wheels/torch.whl", [True, True]),
        ("one.txt", [True, True]),
        ("edit.py", [False, True]),
        ("wheels/another.whl", [True, True]),
        ("not-named.txt", [False, False]),
    ],
)
def test_a_digest_changes_with_what_its_step_can_see(
    context: Path, change: str, changed: list[bool]
) -> None:
    before = digests(context)
    (context / change).write_text("changed")
    after = digests(context)
    assert [one != other for one, other in zip(before, after, strict=True)] == changed
    assert digests(context) == after


def test_podmans_words_become_the_events_that_buildkits_do() -> None:
    """Recorded from podman 4.3."""
    heard: list[Event] = []
    progress = PodmanProgress("envforge-test/steps:1", heard.append)
    lines = [
        "[1/2] STEP 1/2: FROM envforge/base:x AS wheels",
        "[1/2] STEP 2/2: RUN make",
        "[3/9] building x",
        "no end of line--> 0df329c3865",
        "[2/2] STEP 1/3: FROM envforge/base:x AS runtime",
        "[2/2] STEP 2/3: USER envforge",
        f"--> Using cache {'6' * 64}",
        "--> 66666666666",
        "[2/2] STEP 3/3: RUN exit 3",
        "last words",
        'Error: building at STEP "RUN exit 3": while running runtime: exit status 3',
    ]
    for line in lines:
        progress.read(line)
    assert [event.text for event in heard if event.kind == "done"] == [
        "[wheels 1/2] FROM envforge/base:x AS wheels",
        "[wheels 2/2] RUN make",
        "[runtime 1/3] FROM envforge/base:x AS runtime",
        "[runtime 2/3] USER envforge (cached)",
    ]
    assert Event("count", "building x", 3, 9) in heard
    assert Event("log", "no end of line") in heard
    assert str(progress.failed) == "step runtime 3/3: RUN exit 3"
    assert progress.tail_of(progress.failed) == (
        "last words",
        'building at STEP "RUN exit 3": while running runtime: exit status 3',
    )


@pytest.mark.parametrize("mark", ["[1/2] ", ""])
def test_a_last_line_without_an_end_is_told_apart_from_podmans_own_words(mark: str) -> None:
    heard: list[Event] = []
    progress = PodmanProgress("envforge-test/steps:1", heard.append)
    for line in (
        f"{mark}STEP 1/1: RUN printf built",
        f"built{mark}COMMIT envforge-test/steps:1",
        "--> 626d3a63efe",
        "Successfully tagged localhost/envforge-test/steps:1",
        "6" * 64,
    ):
        progress.read(line)
    assert [event.text for event in heard if event.kind == "log"] == ["built"]
    assert heard[-1] == Event("done", "[1/1] RUN printf built")
