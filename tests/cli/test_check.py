"""``envforge check`` and the command line around it, as whole processes and in process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envforge import cli
from envforge.capability.load import load


def envforge(*arguments, env=None):
    command = [sys.executable, "-m", "envforge", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def call(capsys, *arguments):
    code = cli.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_card_is_identified_and_its_routes_listed_cheapest_first(capsys):
    code, out, _ = call(capsys, "check", "--gpu", "k40", "--json")
    card = json.loads(out)["cards"][0]
    assert code == 0
    assert json.loads(out)["schema"] == "envforge.check/1"
    assert (card["compute_capability"], card["architecture"]) == ("3.5", "Kepler")
    assert (card["last_driver_branch"], card["detected_by"]) == ("470", "--gpu")
    kinds = [route["kind"] for route in card["routes"]]
    assert kinds == ["wheel", "wheel-variant", "conda-forge", "source", "cpu"]


def test_every_route_has_the_published_fields_and_a_command(capsys):
    _, out, _ = call(capsys, "check", "--gpu", "gtx1080", "--json")
    for route in json.loads(out)["cards"][0]["routes"]:
        assert {
            "kind", "torch", "cuda", "python", "platform", "support", "evidence", "command", "notes",
        } <= set(route)  # fmt: skip
        assert route["torch"] in route["command"] or route["kind"] == "distribution"


def test_text_names_card_routes_and_commands(capsys):
    code, out, _ = call(capsys, "check", "--gpu", "gtx760", "--torch", "1.0.1")
    assert code == 0
    assert "GeForce GTX 760" in out
    assert "10de:1187 · GK104 · compute capability 3.0 (Kepler)" in out
    assert "$ envforge build --gpu 10de:1187 --route source --torch 1.0.1" in out
    assert "not built yet by anybody" in out


def test_verbose_names_the_source_of_every_route_and_of_every_rule(capsys):
    _, brief, _ = call(capsys, "check", "--gpu", "k40")
    _, out, _ = call(capsys, "check", "--gpu", "k40", "-v")
    _, document, _ = call(capsys, "check", "--gpu", "k40", "--json")
    routes = json.loads(document)["cards"][0]["routes"]
    said = [line.strip() for line in out.splitlines()]
    assert [line for line in said if line in brief] == [line.strip() for line in brief.splitlines()]
    assert len(said) - len(brief.splitlines()) == len(routes)
    assert all(route["source"] in said for route in routes)


def test_verbose_says_why_nothing_computes_on_a_card_of_another_machine(capsys, monkeypatch):
    monkeypatch.setenv("ENVFORGE_GPU", "10de:1140")
    rule = "pytorch-kernels-need-shfl · inferred"
    assert rule not in call(capsys, "check")[1]
    assert rule in call(capsys, "check", "-v")[1]


def test_an_impossible_pair_ends_with_exit_4_rules_and_ways_out(capsys):
    code, out, err = call(capsys, "check", "--gpu", "gtx760", "--torch", "2.15.0", "--json")
    error = json.loads(out)["error"]
    assert code == 4
    assert error["code"] == "unsatisfiable"
    assert all(rule["id"] and rule["text"] and rule["source"] for rule in error["rules"])
    assert [item["drop"] for item in error["relaxations"]] == ["torch", "gpu"]
    assert "torch 2.15.0's default wheel carries sm_75" in err
    assert "without --torch: torch 1.10.2" in err


def test_the_t440_is_told_what_cuda_8_would_do_and_what_is_left(capsys):
    code, _, err = call(capsys, "check", "--gpu", "10de:1140", "--torch", "1.0.1")
    assert code == 4
    assert "nvcc of CUDA 7.5, 8.0 would still compile for sm_21" in err
    assert "nvcc of CUDA 9.0, 9.1, 9.2, 10.0, 10.1, 10.2 refuses sm_21" in err
    assert "__shfl" in err
    assert "envforge build --cpu --torch 1.0.1" in err


def test_an_ambiguous_name_ends_with_exit_3_and_the_choices(capsys):
    code, out, err = call(capsys, "check", "--gpu", "gt730", "--json")
    error = json.loads(out)["error"]
    assert (code, error["code"]) == (3, "ambiguous-name")
    assert {choice["compute_capability"] for choice in error["choices"]} == {"2.1", "3.0", "3.5"}
    assert "10de:1287" in err


def test_an_unknown_card_ends_with_exit_3_and_near_matches(capsys):
    code, out, _ = call(capsys, "check", "--gpu", "gtx761", "--json")
    assert code == 3
    assert "gtx760" in json.loads(out)["error"]["near"]


@pytest.mark.parametrize(
    ("flag", "value", "code"),
    [
        ("--torch", "1.0.1; rm -rf /", 2),
        ("--torch", "$(id)", 2),
        ("--cuda", "10.1`id`", 2),
        ("--python", "3.6|x", 2),
        ("--gcc", "7 && x", 2),
        ("--gpu", "gtx760; id", 3),
        ("--route", "teleport", 2),
    ],
)
def test_shell_metacharacters_are_refused_at_the_door(capsys, flag, value, code):
    arguments = ["check", flag, value] + ([] if flag == "--gpu" else ["--gpu", "gtx760"])
    assert call(capsys, *arguments)[0] == code


def test_an_unknown_platform_is_refused_with_the_known_ones(capsys):
    code, _, err = call(capsys, "check", "--gpu", "gtx760", "--platform", "debian-99")
    assert code == 3
    assert "debian-12" in err


def test_contradicting_flags_are_refused(capsys):
    assert call(capsys, "check", "--cpu", "--route", "wheel")[0] == 2
    assert call(capsys, "check", "--cpu", "--gpu", "gtx760")[0] == 2
    code, _, err = call(capsys, "build", "--gpu", "gtx760", "-q", "-v")
    assert (code, err) == (2, "error: usage: --quiet and --verbose contradict each other\n")


def test_diagnostics_go_to_stderr_and_json_alone_to_stdout():
    answer = envforge("check", "--gpu", "gtx761", "--json")
    assert answer.returncode == 3
    assert json.loads(answer.stdout)["error"]["code"] == "unknown-name"
    assert "error: unknown-name" in answer.stderr


def test_a_closed_pipe_is_no_error():
    process = subprocess.Popen(
        f"{sys.executable} -m envforge check --gpu k40 --json | head -c 1",
        shell=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, err = process.communicate()
    assert err == b""


def test_a_driver_of_another_machine_can_be_named(capsys, monkeypatch):
    monkeypatch.setenv("ENVFORGE_DRIVER", "390.157")
    monkeypatch.setenv("ENVFORGE_GPU", "gtx780")
    code, out, _ = call(capsys, "check", "--json", "--torch", "1.2.0")
    card = json.loads(out)["cards"][0]
    assert code == 0
    assert card["detected_by"] == "ENVFORGE_GPU"
    assert "wheel" not in [route["kind"] for route in card["routes"]], "CUDA 10.0 needs 410.48"


def test_a_card_that_came_after_the_driver_names_the_branch_it_needs(capsys, monkeypatch):
    monkeypatch.setenv("ENVFORGE_DRIVER", "450.80.02")
    code, _, err = call(capsys, "check", "--gpu", "rtx4090")
    assert code == 4
    assert (
        "  - compute capability 8.9 (Ada Lovelace) is known to drivers from branch 520 on, here is"
        " 450.80.02" in err
    )
    assert "  with a newer driver: torch 2.15.0 with CUDA 13.2 (route wheel): " in err


def test_a_driver_that_dropped_the_card_is_named_with_the_last_branch(capsys, monkeypatch):
    monkeypatch.setenv("ENVFORGE_DRIVER", "580.65.06")
    _, out, _ = call(capsys, "check", "--gpu", "k40", "--json")
    (finding,) = json.loads(out)["cards"][0]["findings"]
    assert finding["key"] == "driver-too-new"
    assert finding["facts"]["last_branch"] == "470"


def test_a_name_that_is_no_utf_8_is_refused_where_it_must_be_sent():
    with pytest.raises(UnicodeEncodeError) as caught:
        os.fsdecode(b"caf\xe9").encode()
    refused = cli._converted(caught.value, [])
    assert (refused.exit_code, refused.what) == (2, "a name is no UTF-8")
    assert refused.because == (r"'caf\udce9'",)


def test_an_unexpected_fault_ends_with_exit_1_and_a_log(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def broken(_name):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("importlib.import_module", broken)
    code, _, err = call(capsys, "check")
    assert code == 1
    assert "this is a bug in envforge: RuntimeError: unforeseen" in err
    log = next(tmp_path.rglob("bug-*.txt"))
    assert "Traceback" in log.read_text()
    assert str(log) in err


def test_completion_offers_cards_versions_and_platforms():
    def complete(words, current):
        environment = {
            **os.environ,
            "_ENVFORGE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(current),
        }
        return envforge(env=environment).stdout

    assert "plain,gtx760" in complete("envforge check --gpu gtx76", 3)
    assert "plain,2.15.0" in complete("envforge check --torch 2.1", 3)
    assert "plain,10.1.243" in complete("envforge explain --cuda 10.", 3)
    assert "plain,3.13" in complete("envforge build --python 3.1", 3)
    assert set(complete("envforge check --gcc 1", 3).split()) == {
        f"plain,{row.version}" for each in load().platforms for row in each.compilers
        if row.version.startswith("1")
    }  # fmt: skip
    assert "plain,debian-12" in complete("envforge check --platform deb", 3)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["--gpu", "--torch", "--cuda", "--python", "--gcc", "--platform"]),
            st.text(max_size=12),
        ),
        max_size=4,
    )
)
@settings(max_examples=150, deadline=None)
def test_any_input_ends_in_an_answer_or_a_documented_error(options):
    arguments = ["check", *(word for pair in options for word in pair)]
    assert cli.main(arguments) in (0, 2, 3, 4)


def test_every_command_of_a_route_is_about_known_versions(capsys):
    known = {release.version for release in load().releases}
    for gpu in ("k40", "k80", "gtx970", "gtx1080", "v100", "t4", "h200"):
        _, out, _ = call(capsys, "check", "--gpu", gpu, "--json")
        routes = json.loads(out)["cards"][0]["routes"]
        assert {route["torch"] for route in routes} <= known


def test_all_lists_every_release_of_a_route(capsys):
    _, out, _ = call(capsys, "check", "--gpu", "k80", "--route", "wheel", "--all", "--json")
    routes = json.loads(out)["cards"][0]["routes"]
    versions = [route["torch"] for route in routes if route["kind"] == "wheel"]
    assert versions[0] == "2.0.1"
    assert versions[-1] == "1.0.0"


def test_pip_args_are_one_line_for_another_installer(capsys):
    code, out, _ = call(
        capsys, "check", "--gpu", "gtx1080", "--route", "wheel-variant", "--pip-args"
    )
    assert code == 0
    assert out == "torch==2.14.1 --index-url https://download.pytorch.org/whl/cu126\n"
    assert call(capsys, "check", "--gpu", "gtx760", "--pip-args")[0] == 2


@pytest.mark.parametrize("other", ["--json", "--installed"])
def test_pip_args_stand_alone(capsys, other):
    code, _, err = call(capsys, "check", "--gpu", "gtx1080", "--pip-args", other)
    assert code == 2
    assert f"--pip-args and {other} contradict each other" in err


def test_explain_names_the_choice_and_every_rule_on_the_way(capsys):
    code, out, _ = call(capsys, "explain", "--gpu", "gtx760", "--torch", "1.0.1", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["resolution"]["cuda"] == "10.1.243"
    ids = [rejection["id"] for rejection in document["rejections"]]
    assert {"compute-3.0-cuda", "torch-1.0.1-cuda", "wheel-1.0.1-kernels"} <= set(ids)


def test_explain_of_the_impossible_ends_with_exit_4(capsys):
    code, out, _ = call(capsys, "explain", "--gpu", "gtx760", "--torch", "2.15.0", "--json")
    assert code == 4
    assert json.loads(out)["error"]["code"] == "unsatisfiable"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gpus", "gtx", "760"], "10de:1187"),
        (["torch", "2.15"], "2.15.0"),
        (["cuda", "10.1"], "10.1.243"),
        (["platforms", "bookworm"], "debian-12"),
        (["recipes"], "canary"),
    ],
)
def test_list_shows_what_is_known_and_filters(capsys, words, expected):
    code, out, _ = call(capsys, "list", *words)
    assert code == 0
    assert expected in out
    rows = json.loads(call(capsys, "list", *words, "--json")[1])["rows"]
    assert 0 < len(rows) <= 12


def test_a_filter_that_matches_nothing_says_so(capsys):
    assert call(capsys, "list", "gpus", "voodoo2")[1] == "nothing matches\n"
