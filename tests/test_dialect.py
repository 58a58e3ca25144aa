"""Our Dockerfiles are read into records, and a second reader finds the same in them."""

from __future__ import annotations

import re

import pytest
from dockerfile_reader import environment, runs
from dockerfile_reader import stages as read_otherwise
from plan_contexts import PLANS, prepared

from envforge.image.dialect import (
    Cmd,
    Comment,
    Copy,
    Env,
    Mount,
    Part,
    Run,
    Stage,
    ancestry,
    needed,
    read_dockerfile,
    workdir_of,
)

SMALL = """\
# What it is.
FROM some/base:1 AS base

# The first stage.
FROM base AS made
# Why.
RUN --mount=type=bind,source=inputs/a.tar,target=/tmp/a.tar \\
    --mount=type=cache,id=kept,target=/cache \\
    mkdir /src \\
 && tar --extract --file /tmp/a.tar
ENV HOME_OF="/opt/a \\"b\\"" \\
    PATH="/opt/a"/bin:$PATH
ARG MAX_JOBS=1
WORKDIR /src

FROM scratch AS wheel
COPY --from=made /wheels/ /

FROM base AS runtime
RUN --mount=type=bind,from=made,source=/out,target=/out \\
    cp /out/a /b
COPY --from=made /site/ /opt/site/
COPY a.py b.json /opt/
USER envforge
CMD ["/usr/bin/python3", "-q"]
"""


@pytest.fixture(scope="module")
def dockerfiles(tmp_path_factory):
    """The Dockerfile of every plan, by the plan's name."""
    scratch = tmp_path_factory.mktemp("plans")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(scratch / "cache"))
        return {
            case["name"]: prepared(case, scratch).context.files["Dockerfile"].decode()
            for case in PLANS
        }


def test_every_word_of_the_dialect_becomes_a_record():
    base, made, wheel, runtime = read_dockerfile(SMALL)
    assert base == Stage("base", "some/base:1", (), ("What it is.",))
    assert made.comments == ("The first stage.",)
    assert made.instructions[:3] == (
        Comment("Why."),
        Run(
            "mkdir /src \\\n && tar --extract --file /tmp/a.tar",
            (Mount("bind", "inputs/a.tar", "/tmp/a.tar"), Mount("cache", "kept", "/cache")),
        ),
        Env(
            (
                ("HOME_OF", (Part('/opt/a "b"'),)),
                ("PATH", (Part("/opt/a/bin:"), Part("PATH", is_variable=True))),
            )
        ),
    )
    assert wheel.instructions == (Copy(("/wheels/",), "/", "made"),)
    assert runtime.instructions[0] == Run("cp /out/a /b", (Mount("bind", "/out", "/out", "made"),))
    assert runtime.instructions[2] == Copy(("a.py", "b.json"), "/opt/")
    assert runtime.instructions[-1] == Cmd(("/usr/bin/python3", "-q"))


def test_a_stage_needs_what_it_is_made_of_and_what_it_takes_from():
    stages = read_dockerfile(SMALL)
    assert [stage.name for stage in needed(stages, "runtime")] == ["base", "made", "runtime"]
    assert [stage.name for stage in needed(stages, "made")] == ["base", "made"]
    assert [stage.name for stage in ancestry(stages, "made")] == ["base", "made"]
    assert workdir_of(ancestry(stages, "made")) == "/src"
    assert workdir_of(ancestry(stages, "runtime")) == "/"
    with pytest.raises(ValueError, match=r"^no stage elsewhere$"):
        needed(stages, "elsewhere")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("HEALTHCHECK NONE", "HEALTHCHECK is not of our dialect"),
        ("ADD rootfs.tar /", "ADD is not of our dialect"),
        ("RUN --network=none true", "RUN '--network=none true' is not of our dialect"),
        ('RUN ["true"]', "RUN '[\"true\"]' is not of our dialect"),
        ("RUN cat <<EOF", "RUN 'cat <<EOF' is not of our dialect"),
        (
            "RUN true \\\n# why\n && true",
            "RUN with a comment or an empty line inside is not of our dialect",
        ),
        (
            "RUN --mount=type=secret,id=key,target=/key true",
            "--mount=type=secret,id=key,target=/key is not of our dialect",
        ),
        (
            "RUN --mount=type=bind,source=a,target=/a,rw true",
            "--mount=type=bind,source=a,target=/a,rw is not of our dialect",
        ),
        ("COPY --chown=1 a /b/", "COPY '--chown=1 a /b/' is not of our dialect"),
        ("COPY a /b", "COPY 'a /b' is not of our dialect"),
        ("COPY --from=later /a /b/", "COPY takes from later, which is no earlier stage"),
        ("ENV A=$HOME$(id)", "ENV value '$(id)' is not of our dialect"),
        ("ENV A=1 B=$A", "ENV sets A and uses it at once"),
        ("ENV A", "ENV 'A' is not of our dialect"),
        ("USER 0:0", "USER '0:0' is not of our dialect"),
        ("WORKDIR src", "WORKDIR 'src' is not of our dialect"),
        ("CMD python3", "CMD 'python3' is not of our dialect"),
        ("ARG JOBS", "ARG 'JOBS' is not of our dialect"),
        ("FROM --platform=x y AS z", "FROM '--platform=x y AS z' is not of our dialect"),
        ("FROM other/image AS z", "no stage other/image: only the first one is made of an image"),
        ("FROM base AS base", "a second stage base"),
    ],
)
def test_what_is_not_of_the_dialect_is_refused_with_its_line(line, said):
    with pytest.raises(ValueError) as caught:
        read_dockerfile(f"FROM some/base AS base\n\n{line}\n")
    assert str(caught.value) == f"Dockerfile, line 3: {said}"


def test_nothing_may_stand_before_the_first_stage():
    with pytest.raises(ValueError, match=r"^Dockerfile, line 1: RUN before the first FROM$"):
        read_dockerfile("RUN true\n")


@pytest.mark.parametrize("name", [case["name"] for case in PLANS])
def test_two_readers_find_the_same_in_every_rendered_dockerfile(name, dockerfiles):
    text = dockerfiles[name]
    ours, theirs = read_dockerfile(text), read_otherwise(text)
    assert [stage.name for stage in ours] == list(theirs)
    for stage in ours:
        commands = [step for step in stage.instructions if isinstance(step, Run)]
        found = [
            re.sub(r"--mount=\S+ ", "", run.replace(" \\ ", " ")).strip()
            for run in runs(theirs[stage.name])
        ]
        assert [" ".join(run.command.replace("\\\n", " ").split()) for run in commands] == found
        mounted = [
            m for run in runs(theirs[stage.name]) for m in re.findall(r"target=([^ ,]+)", run)
        ]
        assert [mount.target for run in commands for mount in run.mounts] == mounted
        variables = {
            name: "".join(f"${p.text}" if p.is_variable else p.text for p in parts)
            for step in stage.instructions
            if isinstance(step, Env)
            for name, parts in step.variables
        }
        plain = {
            name: value.replace('"', "") for name, value in environment(theirs[stage.name]).items()
        }
        assert set(variables) == set(plain)
        # The other reader ends a value at its closing quote.
        assert all(variables[name].startswith(value) for name, value in plain.items())
