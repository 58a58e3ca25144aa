"""The same doors with podman: what it does otherwise, seen on a real one with a storage of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from image_parts import STORAGE_CONF, TINY, Heard, processes_with, wait_until

from envforge.errors import BuildFailed, EngineUnavailable
from envforge.image.engine import Build, Engine, Launch, connect, label_json
from envforge.image.lock import load_lock
from envforge.training.docker import DockerProcess
from envforge.training.executor import Ending

pytestmark = pytest.mark.engine

PLAN = ("--gpu", "gtx780", "--torch", "1.0.1")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    return folder


def write(context: Path, *instructions: str) -> Path:
    """Write a Dockerfile that no build before this one can have cached."""
    lines = [f"FROM {TINY} AS first", "USER 0", f"ENV FRESH={uuid.uuid4()}", *instructions]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    return context


def working_containers() -> str:
    """Name what builders left in the storage, which no API lists."""
    argv = ["podman", "ps", "--all", "--external", "--format", "{{.Names}}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def saved(ref: str, folder: Path) -> bytes:
    """Every byte of an image: its layers, its history, its settings."""
    target = folder / "saved.tar"
    subprocess.run(["podman", "save", "--output", target, ref], check=True, capture_output=True)
    return target.read_bytes()


def test_a_build_tells_its_steps_and_gives_the_images_id(
    podman: Engine, tiny_podman: str, context: Path, tmp_path: Path
) -> None:
    write(context, "RUN printf built", "FROM first AS second", "RUN exit 9")
    heard = Heard()
    labels = {"envforge.plan": label_json({"seen": 'a "b" $c'})}
    build = Build(context, "envforge-test/steps:1", target="first", labels=labels)
    image_id = podman.build(build, log=tmp_path / "log.txt", on_event=heard)
    found = podman.image("envforge-test/steps:1")
    assert found is not None
    assert found.id == image_id == podman.image_id("localhost/envforge-test/steps:1")
    assert json.loads(found.labels["envforge.plan"]) == {"seen": 'a "b" $c'}
    steps = heard.texts("step")
    own = [step for step in steps if " LABEL " not in step]  # podman 5 makes a step of --label
    assert re.fullmatch(r"\[first 4/[45]\] RUN printf built", own[-1])
    assert heard.texts("log") == ["built"]
    assert heard.events[-1].text == steps[-1]
    for _ in range(2):
        podman.remove("envforge-test/steps:1")
        assert podman.image_id("envforge-test/steps:1") is None


def test_a_mounted_file_that_changed_is_seen_though_the_words_are_the_same(
    podman: Engine, tiny_podman: str, context: Path, tmp_path: Path
) -> None:
    """buildah's cache looks at the words alone: an image would hold another plan's wheels."""
    write(
        context,
        "COPY note.txt /note.txt",
        "FROM first AS second",
        "RUN --mount=type=bind,source=wheels,target=/wheels cat /wheels/torch",
        f"FROM {TINY} AS third",
        "RUN --mount=type=bind,from=first,source=/note.txt,target=/note.txt cat /note.txt",
        "COPY --from=second /bin/ /other/",
    )
    (context / "wheels").mkdir()

    def build() -> set[str]:
        heard = Heard()
        podman.build(Build(context, "envforge-test/seen"), log=tmp_path / "log", on_event=heard)
        return set(heard.texts("log"))  # stages come in any order

    (context / "wheels/torch").write_text("1.0.1\n")
    (context / "note.txt").write_text("old\n")
    assert build() == {"1.0.1", "old"}
    assert build() == set()
    (context / "wheels/torch").write_text("1.13.1\n")
    assert "1.13.1" in build()
    (context / "note.txt").write_text("new\n")
    assert "new" in build()
    (context / "result").write_text("a file that no instruction names")
    assert build() == set()
    podman.remove("envforge-test/seen")


def test_a_failing_step_is_named_with_the_end_of_its_output_and_the_log(
    podman: Engine, tiny_podman: str, context: Path, tmp_path: Path
) -> None:
    lines = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; done"
    write(context, f"RUN {lines}; echo no such kernel; exit 3")
    log = tmp_path / "log.txt"
    with pytest.raises(BuildFailed) as caught:
        podman.build(Build(context, "envforge-test/fails"), log=log)
    error = caught.value
    assert error.what.startswith("the build failed in step first 4/4: RUN i=0; while [")
    assert {"line 40", "no such kernel"} <= set(error.because)
    assert error.because[-1].endswith("exit status 3")
    assert error.hint == f"the whole log: {log}"
    assert "line 1\n" in log.read_text()
    assert podman.image("envforge-test/fails") is None


@pytest.mark.parametrize(
    ("instruction", "error"),
    [
        ("FOO bar", ("first 4/4: FOO bar", "nstruction")),
        ("COPY no /", ("first 4/4: COPY no /", "no such file or directory")),
        ("FROM nothing/such:1", ("1/1: FROM nothing/such:1", "nothing/such:1")),
    ],
)
def test_a_dockerfile_that_cannot_be_built_says_why(
    podman: Engine, tiny_podman: str, context: Path, instruction: str, error: tuple[str, str]
) -> None:
    write(context, instruction)
    with pytest.raises(BuildFailed) as caught:
        podman.build(Build(context, "envforge-test/fails"), log=context / "log.txt")
    assert caught.value.what == f"the build failed in step {error[0]}"
    assert error[1] in "\n".join(caught.value.because)


def test_proxy_secret_and_certificates_reach_a_step_and_no_layer(
    podman: Engine, tiny_podman: str, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    secret, bundle = tmp_path / "secret", tmp_path / "bundle.crt"
    secret.write_text("DO-NOT-KEEP-ME\n")
    bundle.write_text("MARKED-BUNDLE\n")
    (context / "own.crt").write_text("THE-IMAGES-OWN\n")
    write(
        context,
        "COPY own.crt /etc/ssl/certs/ca-certificates.crt",
        "RUN --mount=type=secret,id=key cat /run/secrets/key && echo through $https_proxy",
        "RUN cat /etc/ssl/certs/ca-certificates.crt",
    )
    build = Build(context, "envforge-test/kept", secrets={"key": secret}, ca_bundle=bundle)
    heard = Heard()
    podman.build(build, log=tmp_path / "log.txt", on_event=heard)
    said = heard.texts("log")
    assert {"DO-NOT-KEEP-ME", "through http://proxy.example:3128", "MARKED-BUNDLE"} <= set(said)
    kept = saved("envforge-test/kept", tmp_path)
    assert b"THE-IMAGES-OWN" in kept, "layers are not compressed: what is in them is found"
    for mark in (b"DO-NOT-KEEP-ME", b"proxy.example", b"MARKED-BUNDLE"):
        assert mark not in kept
    podman.remove("envforge-test/kept")


def test_ctrl_c_ends_the_build_and_everything_in_it(
    podman: Engine, tiny_podman: str, context: Path, tmp_path: Path
) -> None:
    mark = f"8{os.getpid()}.125"
    write(context, f"RUN echo started; sleep {mark}")
    before = working_containers()
    press = Heard("started", lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        podman.build(Build(context, "envforge-test/stopped"), log=tmp_path / "log", on_event=press)
    assert wait_until(lambda: not processes_with(mark)), "the step goes on"
    assert working_containers() == before
    assert podman.image("envforge-test/stopped") is None


def test_a_service_with_another_storage_is_sent_the_context(
    podman: Engine, tiny_podman: str, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "storage.conf").write_text(STORAGE_CONF.format(folder=tmp_path))
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    write(context, "COPY sent /sent", "RUN cat /sent")
    (context / "sent").write_text("over the socket\n")
    heard = Heard()
    with connect(kind="podman", host=podman.endpoint.host) as far:
        assert far.builder.argv(Build(context, "x"), context / "Dockerfile", tmp_path)[1] == "--url"
        image_id = far.build(
            Build(context, "envforge-test/far"), log=tmp_path / "log.txt", on_event=heard
        )
    assert "over the socket" in heard.texts("log")
    assert podman.image_id("envforge-test/far") == image_id
    podman.remove("envforge-test/far")


def test_a_docker_host_that_is_podmans_socket_is_known_for_podman(podman: Engine) -> None:
    with connect(host=podman.endpoint.host) as found:
        assert (found.kind, found.version) == ("podman", podman.version)


def test_a_memory_limit_is_the_kernels_doing_though_podman_does_not_say_so(
    podman: Engine, tiny_podman: str
) -> None:
    launch = Launch(tiny_podman, ["sh", "-c", "sleep 2; exec tail /dev/zero"], memory_mib=32)
    with podman.run(launch) as container:
        process = DockerProcess(container)
        assert process.wait() == Ending(137, out_of_memory=True)


def test_files_come_out_of_an_image_that_is_not_run(
    podman: Engine, tiny_podman: str, context: Path, tmp_path: Path
) -> None:
    write(context, "RUN echo content > /file", "FROM scratch AS wheel", "COPY --from=first /file /")
    podman.build(Build(context, "envforge-test/wheel", target="wheel"), log=tmp_path / "log")
    found = {
        name: path.read_text()
        for name, path in podman.export(
            "envforge-test/wheel", lambda name: "file" in name, tmp_path
        )
    }
    assert list(found.values()) == ["content\n"]
    podman.remove("envforge-test/wheel")


def test_a_card_is_asked_for_by_its_cdi_name(podman: Engine, tiny_podman: str) -> None:
    """Real CDI, no card: what nvidia-ctk describes is described here by hand."""
    launch = Launch(tiny_podman, ["env"], gpus=True)
    described = [*Path("/etc/cdi").glob("nvidia*"), *Path("/var/run/cdi").glob("nvidia*")]
    if not described:
        with pytest.raises(EngineUnavailable) as caught:
            podman.run(launch)
        assert caught.value.what == "the engine cannot give a container a GPU"
        assert caught.value.hint.endswith(
            "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
        )
        own = Path("/var/run/cdi/envforge-test.yaml")
        own.parent.mkdir(exist_ok=True)
        own.write_text(
            'cdiVersion: "0.3.0"\nkind: nvidia.com/gpu\ndevices:\n- name: all\n'
            '  containerEdits:\n    env: ["NVIDIA_VISIBLE_DEVICES=void"]\n'
        )
        try:
            with podman.run(launch) as container:
                assert "NVIDIA_VISIBLE_DEVICES=void" in list(container.logs())
        finally:
            own.unlink()


def envforge(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "envforge", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_a_plan_that_docker_has_built_verifies_equal_on_podman(
    podman: Engine, tmp_path: Path
) -> None:
    locks = {}
    for kind in ("docker", "podman"):
        answer = envforge(tmp_path / kind, "build", *PLAN, "--engine", kind)
        assert answer.returncode == 0, answer.stderr
        locks[kind] = load_lock(tmp_path / kind / "envforge.lock")
    one, other = locks["docker"], locks["podman"]
    for field in ("plan", "image", "inputs", "files", "packages", "python", "resolution"):
        assert getattr(one, field) == getattr(other, field), field
    assert one.base.packages_sha256 == other.base.packages_sha256
    assert [check.name for check in one.verified] == [check.name for check in other.verified]
    seen = {check.name: check.seen for check in other.verified}
    assert {c.name: c.seen for c in one.verified if c.name != "training"}.items() <= seen.items()
    assert podman.image_id(other.image) == other.image_id
    again = envforge(tmp_path / "podman", "build", *PLAN, "--engine", "podman")
    assert "already built and verified" in again.stdout
    trained = envforge(tmp_path / "podman", "run", "canary", "--engine", "podman", "--json")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["state"] == "SUCCEEDED"
