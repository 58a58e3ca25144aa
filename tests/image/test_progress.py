"""BuildKit's plain progress, as recorded from a 20.10 client and from buildx 0.13."""

from __future__ import annotations

import pytest
from image_parts import Heard

from envforge.errors import BuildFailed, DiskFull, OutOfMemory
from envforge.image.engine.progress import Progress

BUILT_IN = """\
#1 [internal] load build definition from Dockerfile
#1 sha256:63f8841dbb0ddf16fb9a5fbd12a646fa116142432985cd70d7c2a5750854ec42
#1 transferring dockerfile: 150B done
#1 DONE 0.0s

#6 [a 1/2] FROM docker.io/envforge-test/bullseye
#6 sha256:de70466e8cabe9ddd80ad6cf13eea10f7b9ba5c020ef473a877a670b6e68702b
#6 CACHED

#5 [b 1/1] RUN echo line1; echo line2 >&2; exit 3
#5 sha256:3301b25aa312071edee516bd923a8c8a10649dcc9050de39d5fb485b591da177
#5 0.305 line2
#5 0.305 line1
#5 ERROR: executor failed running [/bin/sh -c echo line1]: exit code: 3
------
 > [b 1/1] RUN echo line1; echo line2 >&2; exit 3:
#5 0.305 line1
------
executor failed running [/bin/sh -c echo line1]: exit code: 3
"""
BUILDX = """\
#0 building with "default" instance using docker driver

#4 [a 1/2] FROM docker.io/envforge-test/bullseye
#4 CACHED

#6 [b 1/1] RUN echo line1; echo line2 >&2; exit 3
#6 0.378 line2
#6 0.379 line1
#6 ERROR: executor failed running [/bin/sh -c echo line1]: exit code: 3
------
 > [b 1/1] RUN echo line1; echo line2 >&2; exit 3:
0.378 line1
------
ERROR: failed to solve: executor failed running [/bin/sh -c echo line1]: exit code: 3
"""


def read(text: str) -> tuple[Progress, Heard]:
    heard = Heard()
    progress = Progress(heard)
    for line in text.splitlines():
        progress.read(line)
    return progress, heard


@pytest.mark.parametrize("text", [BUILT_IN, BUILDX], ids=["20.10", "buildx"])
def test_the_failing_step_and_its_own_lines_are_found(text: str) -> None:
    progress, heard = read(text)
    assert str(progress.failed) == "step b 1/1: RUN echo line1; echo line2 >&2; exit 3"
    assert progress.tail_of(progress.failed) == (
        "line2",
        "line1",
        "executor failed running [/bin/sh -c echo line1]: exit code: 3",
    )
    assert heard.texts("step") == [
        "[a 1/2] FROM docker.io/envforge-test/bullseye",
        "[b 1/1] RUN echo line1; echo line2 >&2; exit 3",
    ]
    assert heard.texts("log") == ["line2", "line1"]
    assert heard.texts("done") == ["[a 1/2] FROM docker.io/envforge-test/bullseye (cached)"]


def test_lines_of_stages_that_run_at_once_are_kept_apart() -> None:
    progress, heard = read(
        "#5 [a 1/1] RUN a\n#6 [b 1/2] RUN b\n#5 0.1 of a\n#6 0.1 of b\n#5 [a 1/1] RUN a\n#5 0.2 more of a\n"
        "#6 DONE 0.3s\n#5 ERROR: exit code: 1\n"
    )
    assert progress.tail_of(progress.failed) == ("of a", "more of a", "exit code: 1")
    assert heard.texts("done") == ["[b 1/2] RUN b"]


def test_output_without_a_last_line_end_hides_neither_success_nor_failure() -> None:
    progress, heard = read("#5 [2/2] RUN printf x\n#5 0.264 x#5 DONE 0.4s\n")
    assert heard.texts("log") == ["x"]
    assert heard.texts("done") == ["[2/2] RUN printf x"]
    progress, _ = read("#5 [2/2] RUN printf x\n#5 0.264 x#5 ERROR: exit code: 1\n")
    assert progress.tail_of(progress.failed) == ("x", "exit code: 1")


def test_a_long_instruction_is_cut_and_a_long_output_keeps_its_end() -> None:
    lines = "".join(f"#5 0.1 line {number}\n" for number in range(100))
    progress, _ = read(f"#5 [2/2] RUN {'x ' * 500}\n{lines}#5 ERROR: exit code: 1\n")
    assert len(str(progress.failed)) < 230
    assert progress.tail_of(progress.failed)[0] == "line 86"


def test_without_any_step_the_end_of_everything_is_the_story() -> None:
    progress, _ = read("error during connect: EOF\n")
    assert progress.failed is None
    assert progress.tail_of(None) == ("error during connect: EOF",)


def test_the_commands_of_ninja_are_counted_and_padded_steps_are_read() -> None:
    _, heard = read(
        "#14 [torch  8/10] RUN setup.py bdist_wheel\n"
        "#14 7.2 [271/1667] Building CXX object c10.dir/Device.cpp.o\n"
        "#14 DONE 9.1s\n"
    )
    step, counted, done = heard.events
    assert (step.kind, step.done, step.total) == ("step", 8, 10)
    assert (counted.kind, counted.done, counted.total) == ("count", 271, 1667)
    assert counted.text == "Building CXX object c10.dir/Device.cpp.o"
    assert done.text == "[torch 8/10] RUN setup.py bdist_wheel"


NINJA_KILLED = """\
#8 [torch 7/9] RUN python3 setup.py bdist_wheel
#8 4.100 [1/3] Building CXX object Lerp.cpp.o
#8 4.200 FAILED: Add.cpp.o
#8 4.300 g++-11: fatal error: Killed signal terminated program cc1plus
#8 4.400 compilation terminated.
{more}
#8 ERROR: executor failed running [/bin/sh -c python3 setup.py bdist_wheel]: exit code: 1
"""


@pytest.mark.parametrize("more", [0, 40])
def test_a_killed_compiler_is_the_end_of_the_memory_however_much_is_said_after_it(
    more: int,
) -> None:
    said = "\n".join(f"#8 5.{line:03} Traceback line {line}" for line in range(more))
    progress, _ = read(NINJA_KILLED.format(more=said))
    cause, story = progress.cause_of(progress.failed)
    assert cause is OutOfMemory
    assert "g++-11: fatal error: Killed signal terminated program cc1plus" in story
    assert len(story) <= 16


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("nvcc error   : 'cicc' died due to signal 9 (Kill signal)", OutOfMemory),
        ("collect2: fatal error: ld terminated with signal 9 [Killed]", OutOfMemory),
        ("cc1plus: out of memory allocating 65536 bytes after a total of 1 bytes", OutOfMemory),
        ("Killed", OutOfMemory),
        ("OSError: [Errno 28] No space left on device: '/site/torch'", DiskFull),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", DiskFull),
        ("error: 'Killed' was not declared in this scope", None),
    ],
)
def test_what_a_step_met_the_end_of_is_read_from_its_words(
    line: str, cause: type[BuildFailed] | None
) -> None:
    ended = "#8 ERROR: executor failed running [/bin/sh -c make]: exit code: 1"
    progress, _ = read(f"#8 [torch 7/9] RUN make\n#8 4.1 {line}\n{ended}\n")
    assert progress.cause_of(progress.failed)[0] is cause


def test_what_other_steps_said_is_no_cause() -> None:
    progress, _ = read(
        "#7 [a 1/1] RUN df\n#7 1.0 No space left on device\n#8 [b 1/1] RUN make\n#8 1.1 no\n"
        "#8 ERROR: executor failed running [/bin/sh -c make]: exit code: 2\n"
    )
    assert progress.cause_of(progress.failed) == (
        None,
        ("no", "executor failed running [/bin/sh -c make]: exit code: 2"),
    )


def test_an_engine_without_room_before_any_step_is_a_full_disk() -> None:
    progress, _ = read(
        "#3 [internal] load .dockerignore\n"
        "#3 ERROR: failed to create temp dir: mkdir /var/lib/docker: no space left on device\n"
    )
    assert progress.cause_of(progress.failed)[0] is DiskFull
