"""The command line as a whole: which commands there are, their help, their exit codes, their errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from weft import errors
from weft.cli.exit_codes import ExitCode, exit_code
from weft.cli.main import COMMANDS, make_app, run

PASSED_ON = {"control", "sidecar", "llm-sim"}


@pytest.fixture(autouse=True)
def _no_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_HOME", str(tmp_path))
    for name in (
        "WEFT_API",
        "WEFT_TOKEN",
        "WEFT_TOKEN_FILE",
        "WEFT_CA_FILE",
        "WEFT_PROXY",
        "WEFT_MESH",
        "WEFT_NATS",
        "WEFT_XDS",
    ):
        monkeypatch.delenv(name, raising=False)


def test_these_are_the_commands() -> None:
    assert [each.name for each in COMMANDS] == [
        *("up", "status", "down", "demo"),
        *("dashboard", "top", "traces", "trace", "logs"),
        *("agents", "discover", "cards", "card", "tools", "tool", "call", "run", "drain"),
        *("task", "queue", "topic", "context", "gateway"),
        *("llm",),
        *("apply", "get", "describe", "diff", "delete"),
        *("can", "token", "audit", "identity"),
        *("kubernetes", "inject"),
        *("control", "sidecar", "llm-sim"),
        *("check", "version", "completion"),
    ]


@pytest.mark.parametrize("name", [each.name for each in COMMANDS if each.name not in PASSED_ON])
def test_every_command_has_help_and_every_option_is_explained(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"weft {name}" in shown
    command = make_app()[name]
    if command.default_command is not None:
        for argument in command.assemble_argument_collection():
            assert not argument.show or argument.parameter.help, f"{argument.name} has no help"


def test_help_needs_no_command_to_be_loaded() -> None:
    script = (
        "import sys; from weft.cli.main import run; run(['--help'])\n"
        "heavy = {'httpx', 'aiohttp', 'pydantic', 'yaml', 'weft.local.mesh'} & sys.modules.keys()\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["down"],
        ["agents"],
        ["discover", "summarizer"],
        ["call", "summarizer", "summarize"],
        ["get", "agents"],
        ["describe", "agent", "summarizer"],
        ["delete", "agent", "summarizer"],
        ["run", "--type", "summarizer", "--", "true"],
        ["queue", "ls"],
        ["task", "submit", "jobs", "a=b"],
        ["topic", "sub", "orders"],
        ["gateway", "run", "public"],
    ],
    ids=" ".join,
)
def test_without_a_mesh_the_way_to_start_one_is_told(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == ExitCode.UNREACHABLE
    assert capsys.readouterr().err == "weft: no mesh is running: start one with `weft up`\n"


def test_another_mesh_that_does_not_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--mesh", "lab"]) == ExitCode.UNREACHABLE
    assert "mesh 'lab' is not running: start it with `weft up --mesh lab`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["agents", "--bogus"], "--bogus"),
        (["agents", "--limit", "0"], "--limit"),
        (["agents", "--limit", "many"], "many"),
        (["agents", "--label", "team", "--api", "http://127.0.0.1:1"], "NAME=VALUE"),
        (["agents", "--api", "ftp://x"], "--api"),
        (["agents", "--mesh", "../x"], "../x"),
        (["agents", "--output", "xml"], "xml"),
        (["apply"], "-f FILE"),
        (["apply", "-f", "/does/not/exist.yaml"], "/does/not/exist.yaml"),
        (["delete"], "KIND NAME"),
        (["delete", "agent"], "NAME"),
        (["describe", "pod", "x"], "'pod'"),
        (["call", "a", "--proxy", "http://127.0.0.1:1"], "KIND"),
        (["call", "a", "k", "text", "--proxy", "http://127.0.0.1:1"], "NAME=VALUE"),
        (["call", "a", "k", "n:=x", "--proxy", "http://127.0.0.1:1"], "not JSON"),
        (["call", "a", "k", "--data", "[1]", "--proxy", "http://127.0.0.1:1"], "JSON object"),
        (
            ["call", "a", "k", "--data", "@/does/not/exist", "--proxy", "http://127.0.0.1:1"],
            "/does/not/exist",
        ),
        (["call", "a", "k", "--header", "x", "--proxy", "http://127.0.0.1:1"], "NAME: VALUE"),
        (["call", "a", "k", "--timeout", "0", "--proxy", "http://127.0.0.1:1"], "--timeout"),
        (["call", "a", "k", "--path", "/x", "--proxy", "http://127.0.0.1:1"], "either KIND or --path"),
        (["call", "a", "--path", "x", "--proxy", "http://127.0.0.1:1"], "--path"),
        (["call", "A!", "k", "--proxy", "http://127.0.0.1:1"], "'A!'"),
        (["task", "submit", "q", "text"], "neither JSON nor NAME=VALUE"),
        (["task", "submit", "q", "a=b", "c"], "neither NAME=VALUE nor NAME:=JSON"),
        (["task", "submit", "q", "a=b", "-f", "x.json"], "either in the command or with -f"),
        (["task", "submit", "q", "-f", "/does/not/exist"], "/does/not/exist"),
        (["task", "submit", "q", "--delay", "soon"], "--delay 'soon'"),
        (["task", "submit", "q", "--priority", "urgent"], "urgent"),
        (["task", "ls", "q", "--state", "lost"], "lost"),
        (["task", "ls", "q", "--limit", "0"], "--limit"),
        (["task", "cancel"], "say which tasks"),
        (["queue", "peek", "q", "--limit", "0"], "--limit"),
        (["queue", "redrive", "q"], "--all"),
        (["queue", "redrive", "q", "q.1", "--all"], "either their ids, or --all"),
        (["topic", "sub", "*.failed", "--from-seq", "1"], "--since"),
        (["topic", "sub", "orders.", "--since", "1h"], "ends in a dot"),
        (["topic", "sub", "orders", "--since", "1h", "--from-seq", "1"], "not both"),
        (["topic", "sub", "orders", "--since", "2026-13-01T00:00:00Z"], "RFC 3339"),
        (["topic", "replay", "orders", "--group", "billing"], "say from where on"),
        (["gateway", "create-key", "g", "shop", "--rate", "fast"], "100/s"),
        (["gateway", "create-key", "g", "shop", "--expires-in", "soon"], "--expires-in"),
        (["up", "--port-base", "70000"], "70000"),
        (["up", "--timeout", "0"], "--timeout"),
        (["up", "/does/not/exist.yaml"], "/does/not/exist.yaml"),
        (["down", "--timeout", "-1"], "--timeout"),
        (["completion", "show", "--shell", "tcsh"], "tcsh"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_makes_no_sense_is_one_message_and_exit_code_2(
    command: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == ExitCode.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("weft: ")
    assert said in told.err
    assert "Traceback" not in told.err


def test_with_debug_the_traceback_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["apply", "--debug"]) == ExitCode.USAGE
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--output", "json"], ["-o", "json"], ["--output=json"]], ids=" ".join)
def test_errors_are_problem_details_where_json_is_asked_for(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["agents", *option]) == ExitCode.UNREACHABLE
    told = capsys.readouterr()
    assert told.out == ""
    assert json.loads(told.err)["type"] == "urn:weft:problem:unavailable"


def test_debug_after_the_two_hyphens_is_meant_for_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--", "program", "--debug", "--output", "json"]) == ExitCode.UNREACHABLE
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.startswith("weft: ")


def test_a_sidecar_is_told_what_is_its_own_and_what_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(
        "weft.cli.processes.os.execve", lambda _path, command, _environ: became.append(command)
    )
    run(["sidecar", "--type", "a", "--", "program", "--type", "b"])
    (command,) = became
    assert command[1:] == ["-m", "weft.sidecar", "--type", "a", "--", "program", "--type", "b"]


def test_an_unreachable_control_plane_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agents", "--api", "http://127.0.0.1:1"]) == ExitCode.UNREACHABLE
    assert "http://127.0.0.1:1 does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MeshError("x"), 1),
        (errors.AgentFailed("x"), 1),
        (errors.InvalidRequest("x"), 2),
        (errors.InvalidResource([]), 2),
        (errors.Unavailable("x"), 3),
        (errors.NotFound("x"), 4),
        (errors.NoSuchAgent("x"), 4),
        (errors.Conflict("x"), 5),
        (errors.NoHealthyAgent("x"), 6),
        (errors.Refused("x"), 6),
        (errors.TimedOut("x"), 7),
        (errors.Interrupted("x"), 7),
        (errors.Unauthenticated("x"), 8),
        (errors.Denied("x"), 8),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, errors.MeshError) else None,
)
def test_each_error_has_its_exit_code(error: errors.MeshError, code: int) -> None:
    assert exit_code(error) == code


def test_versions_are_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--output", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"weft", "envoy", "nats", "python"}
    assert all(number[0].isdigit() for number in told.values())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "show", "--shell", shell]) == 0
    script = capsys.readouterr().out
    for each in COMMANDS:
        assert each.name in script


def test_completion_is_installed_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(["completion", "install", "--shell", "fish"]) == 0
    [installed] = tmp_path.rglob("weft.fish")
    assert str(installed) in capsys.readouterr().out


def test_output_that_nobody_reads_to_its_end_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "weft.cli.main", "completion", "show", "--shell", "bash"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
