"""Builds by a real engine: what is told while they run, and what when they fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
from image_parts import DOCKERFILE, Heard, PrivateEngine, make_context, processes_with, wait_until

from envforge.errors import BuildFailed, EngineUnavailable
from envforge.image.engine import Build, Engine
from envforge.image.engine.builder import find_builder
from envforge.image.engine.endpoint import find_endpoint

pytestmark = pytest.mark.engine


@pytest.fixture
def context(tiny_context: Path, tmp_path: Path) -> Path:
    """The tiny context, to which a test adds instructions."""
    return shutil.copytree(tiny_context, tmp_path / "context", symlinks=True)


def add(context: Path, *instructions: str) -> Path:
    """Add instructions that no build before this one can have cached."""
    fresh = f"ENV FRESH={uuid.uuid4()}"
    (context / "Dockerfile").write_text(DOCKERFILE + "\n".join([fresh, *instructions]) + "\n")
    return context


def test_a_build_tells_its_steps_and_gives_the_images_id(
    engine: Engine, context: Path, tmp_path: Path
) -> None:
    add(
        context,
        "RUN echo built && sleep 0.2",
        "FROM tiny AS second",
        "RUN exit 9",
    )
    heard, log = Heard(), tmp_path / "log.txt"
    build = Build(
        context, "envforge-test/steps", target="tiny", labels={"envforge.plan": 'a "b" $c'}
    )
    image_id = engine.build(build, log=log, on_event=heard)
    found = engine.image("envforge-test/steps")
    assert found is not None
    assert found.id == image_id == engine.image_id("envforge-test/steps")
    assert found.labels == {"envforge.plan": 'a "b" $c'}
    assert heard.texts("step")[-1].startswith("[tiny 2/2] RUN echo built")
    assert "built" in heard.texts("log")
    assert heard.events[-1].kind == "done"
    assert " built\n" in log.read_text()
    engine.remove("envforge-test/steps")
    assert engine.image("envforge-test/steps") is None
    engine.remove("envforge-test/steps")


def test_a_failing_step_is_named_with_the_end_of_its_output_and_the_log(
    engine: Engine, context: Path, tmp_path: Path
) -> None:
    add(
        context,
        "RUN echo fine",
        "RUN i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; done; printf 'no such kernel'; exit 3",
    )
    log = tmp_path / "log.txt"
    with pytest.raises(BuildFailed) as caught:
        engine.build(Build(context, "envforge-test/fails"), log=log)
    error = caught.value
    assert error.exit_code == 7
    assert error.what.startswith("the build failed in step 3/3: RUN i=0; while [")
    assert len(error.because) == 15
    assert {"line 40", "no such kernel"} <= set(error.because)
    assert "exit code: 3" in error.because[-1]
    assert error.hint == f"the whole log: {log}"
    assert "line 1\n" in log.read_text()
    assert engine.image("envforge-test/fails") is None


@pytest.mark.parametrize(
    ("instruction", "error"),
    [
        ("FOO bar", ("the build failed (exit 1)", "unknown instruction: FOO")),
        ("COPY no /", ("the build failed in step 2/2: COPY no /", "not found")),
    ],
)
def test_a_dockerfile_that_cannot_be_built_says_why(
    engine: Engine, context: Path, tmp_path: Path, instruction: str, error: tuple[str, str]
) -> None:
    add(context, instruction)
    with pytest.raises(BuildFailed) as caught:
        engine.build(Build(context, "envforge-test/fails"), log=tmp_path / "log.txt")
    assert caught.value.what == error[0]
    assert error[1] in caught.value.because[-1]


def test_arguments_and_secrets_reach_the_build_and_secrets_no_layer(
    engine: Engine, context: Path, tmp_path: Path
) -> None:
    add(
        context,
        "ARG GREETING",
        "RUN --mount=type=secret,id=ca echo $GREETING; head -c 5 /run/secrets/ca",
        "RUN ! cat /run/secrets/ca",
    )
    secret = tmp_path / "ca.crt"
    secret.write_text("TRUST-ME")
    heard = Heard()
    build = Build(
        context,
        "envforge-test/arguments",
        build_args={"GREETING": "hello; exit 1"},
        secrets={"ca": secret},
    )
    engine.build(build, log=tmp_path / "log.txt", on_event=heard)
    assert "hello; exit 1" in heard.texts("log")
    assert "TRUST" in heard.texts("log")
    engine.remove("envforge-test/arguments")


def test_the_hosts_proxy_reaches_a_step_and_no_layer(
    engine: Engine, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    add(context, "RUN echo through $https_proxy")
    heard = Heard()
    engine.build(Build(context, "envforge-test/proxy"), log=tmp_path / "log.txt", on_event=heard)
    assert "through http://proxy.example:3128" in heard.texts("log")
    history = subprocess.run(
        [engine.builder.path, "history", "--no-trunc", "envforge-test/proxy"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "proxy.example" not in history
    engine.remove("envforge-test/proxy")


def test_the_hosts_certificates_reach_every_step_and_no_layer(
    engine: Engine, context: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("MARKED-BUNDLE\n")
    (context / "own.crt").write_text("THE-IMAGES-OWN\n")
    file = "/etc/ssl/certs/ca-certificates.crt"
    add(context, f"COPY own.crt {file}", f"RUN cat {file}", f"RUN cat \\\n  {file}")
    heard = Heard()
    build = Build(context, "envforge-test/certificates", ca_bundle=bundle)
    engine.build(build, log=tmp_path / "log.txt", on_event=heard)
    assert heard.texts("log").count("MARKED-BUNDLE") == 2
    argv = [engine.builder.path, "save", "envforge-test/certificates"]
    kept = subprocess.run(argv, capture_output=True, check=True).stdout
    assert b"THE-IMAGES-OWN" in kept, "layers are not compressed: what is in them is found"
    assert b"MARKED-BUNDLE" not in kept
    engine.remove("envforge-test/certificates")


def test_ctrl_c_ends_the_build_and_everything_in_it(
    engine: Engine, context: Path, tmp_path: Path
) -> None:
    mark = f"8{os.getpid()}.25"
    add(context, f"RUN echo started {tmp_path.name}; sleep {mark}")
    press = Heard("started", lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        engine.build(
            Build(context, "envforge-test/stopped"), log=tmp_path / "log.txt", on_event=press
        )
    assert wait_until(lambda: not processes_with(mark)), "the step goes on"
    assert engine.image("envforge-test/stopped") is None


def test_an_engine_killed_in_a_build_is_said_to_have_stopped(
    engine: Engine, own_engine: PrivateEngine, tmp_path: Path
) -> None:
    mark = f"8{os.getpid()}.75"
    context = make_context(tmp_path / "context", f"RUN echo started; sleep {mark}\n")
    log = tmp_path / "log.txt"
    with own_engine.start() as private:
        with pytest.raises(BuildFailed) as caught:
            private.build(
                Build(context, "envforge-test/killed"),
                log=log,
                on_event=Heard("started", own_engine.kill),
            )
        error = caught.value
        assert error.exit_code == 7
        assert error.what.startswith(
            "the container engine stopped answering in step 2/2: RUN echo started"
        )
        assert error.hint.endswith(f"the whole log: {log}")
        with pytest.raises(EngineUnavailable) as gone:
            private.image("envforge-test/killed")
    assert "stopped answering" in gone.value.what
    assert not processes_with(mark)
    assert "started" in log.read_text()


def test_a_client_without_buildx_is_passed_over_for_one_that_builds(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = write_client(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert find_builder(find_endpoint()).path not in ("", str(newer))


def test_without_any_client_that_builds_each_is_named_with_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = write_client(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("envforge.image.engine.builder.docker_clients", lambda: (str(newer),))
    with pytest.raises(EngineUnavailable) as caught:
        find_builder(find_endpoint())
    error = caught.value
    assert error.exit_code == 6
    assert error.what == "no docker client here can build with BuildKit"
    assert error.because == (
        f"{newer}: Docker version 28.2.2, build e6534b4: has no buildx plugin",
    )
    assert "docker-buildx" in error.hint


def write_client(folder: Path) -> Path:
    """A 28.x client as some machines carry it: no plugin. Its answers are recorded ones."""
    path = folder / "docker"
    path.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "--version) echo 'Docker version 28.2.2, build e6534b4';;\n"
        "version) echo 20.10.24;;\n"
        "*) echo 'docker: unknown command: docker buildx' >&2; exit 1;;\n"
        "esac\n"
    )
    path.chmod(0o755)
    return path
