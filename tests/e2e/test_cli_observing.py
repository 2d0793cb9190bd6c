"""What goes on in a mesh, by the commands a user has: logs, top, traces, trace, drain."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from typing import Any

import pytest
from tests.binaries import WEFT
from tests.e2e.load import Journal, check, load
from tests.e2e.observed import wait_until
from tests.e2e.weft_cli import TIMEOUT, Weft, interrupt, wait_for_line

from weft import Mesh

_ALTERNATE_SCREEN, _USUAL_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"


async def _drained_under_load(weft: Weft, *arguments: str) -> str:
    """What `weft drain` says while both workers are called all the time; no call fails."""
    async with (
        Mesh(proxy=weft.json("status")["urls"]["proxy"]) as client,
        load(client) as calls,
    ):
        await calls.reaches("worker-1", "worker-2")
        said = await asyncio.to_thread(weft.ok, "drain", "worker/worker-1", *arguments)
        await calls.goes_on()
        await calls.reaches("worker-1", "worker-2")  # another one is in its place
    check(calls, Journal(weft.directory / "journal"), may_break=False)
    assert calls.plain.failures == {}
    return said


async def test_no_call_fails_while_an_instance_is_drained_and_replaced(observed: Weft) -> None:
    assert await _drained_under_load(observed, "--wait") == "worker/worker-1 has left\n"
    done = [each for each in observed.json("audit") if each["action"] == "drain agent"]
    assert [(each["who"], each["target"], each["outcome"]) for each in done] == [
        ("operator/local", "agent/worker/worker-1", "done")
    ]


def test_who_is_not_there_or_may_not_be_drained_is_told(observed: Weft) -> None:
    assert observed.run("drain", "worker/nobody").returncode == 4
    token = observed.write(
        "viewer-token", observed.ok("token", "create", "looker", "--scope", "viewer").strip()
    )
    token.chmod(0o600)
    assert observed.run("drain", "worker/worker-2", "--token-file", str(token)).returncode == 8
    assert observed.json("top", "--token-file", str(token), "--window", "1h")


def test_logs_are_shown_by_type_and_instance_for_people_and_programs(observed: Weft) -> None:
    both = observed.ok("logs", "worker", "--tail", "1000")
    assert {line.split()[0] for line in both.splitlines() if line.startswith("worker-")} == {
        "worker-1",
        "worker-2",
    }
    one = [json.loads(line) for line in observed.ok("logs", "worker/worker-2", "-o", "json").splitlines()]
    assert {each["process"] for each in one} == {"worker-2"}
    assert any("listens at" in each["line"] for each in one)
    assert [each["at"] for each in one] == sorted(each["at"] for each in one)
    assert observed.ok("logs", "control", "--since", "1h")
    assert len(observed.ok("logs", "--tail", "3").splitlines()) == 3
    assert observed.run("logs", "nobody").returncode == 4


def test_logs_are_followed_over_the_end_of_a_process(observed: Weft) -> None:
    following = observed.start("logs", "worker", "-f")
    try:
        observed.ok("drain", "worker/worker-2")
        wait_for_line(following, "an operator wants worker.worker-2 drained")
        wait_for_line(following, "worker.worker-2 is healthy")
        assert interrupt(following)[0] == 130
    finally:
        following.kill()
        following.communicate()


def _called(observed: Weft, call: str) -> None:
    assert observed.ok("call", "worker", "work", f"call={call}")


def test_calls_that_a_telemetry_wants_are_in_the_log_of_the_caller(observed: Weft) -> None:
    _called(observed, "for-the-log")

    def told() -> bool:
        return "POST worker" in observed.ok("logs", "door", "--access", "--tail", "5")

    wait_until(told, lambda: observed.ok("logs", "door"))
    assert "POST worker" not in observed.ok("logs", "door")


def _top(observed: Weft) -> dict[str, dict[str, Any]]:
    return {each["destination"]: each for each in observed.json("top", "--window", "1h")}


def test_top_tells_what_is_called_and_who_answers(observed: Weft) -> None:
    before = _top(observed)["worker"]["calls"]
    for number in range(3):
        _called(observed, f"for-top-{number}")
    wait_until(lambda: _top(observed)["worker"]["calls"] >= before + 3, lambda: _top(observed))
    worker = _top(observed)["worker"]
    assert worker["instances"] == 2
    assert worker["p50"] > 0
    shown = observed.ok("top", "--sort", "name", "--window", "1h")
    assert "DESTINATION" in shown
    assert "2/2" in next(line for line in shown.splitlines() if line.startswith("worker "))


def _read_until(terminal: int, text: bytes) -> bytes:
    """What comes from a terminal until `text` does; the test has a time limit."""
    found = b""
    while text not in found:
        found += os.read(terminal, 65536)
    return found


@pytest.mark.timeout(TIMEOUT)
def test_top_lives_in_a_terminal_takes_another_size_and_leaves_it_as_it_was(observed: Weft) -> None:
    terminal, other_end = pty.openpty()
    _resize(other_end, 24, 100)
    environ = {name: each for name, each in observed.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    top = subprocess.Popen(
        [WEFT, "top"],
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        env=environ,
        start_new_session=True,
    )
    try:
        os.close(other_end)
        assert _ALTERNATE_SCREEN in _read_until(terminal, b"worker")
        _resize(terminal, 10, 60)
        top.send_signal(signal.SIGWINCH)
        shown = _read_until(terminal, b"Ctrl-C ends it")
        _read_until(terminal, b"Ctrl-C ends it")
        assert b"Traceback" not in shown
        top.send_signal(signal.SIGINT)
        rest = _read_until(terminal, _USUAL_SCREEN)
        assert b"Traceback" not in rest
        assert top.wait(TIMEOUT) == 130
    finally:
        top.kill()
        top.wait()
        os.close(terminal)


def _resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@pytest.fixture
def trace_id(observed: Weft) -> str:
    """The trace of a call that was just made."""
    _called(observed, "for-a-trace")
    found: list[dict[str, Any]] = []

    def told() -> bool:
        found[:] = [
            each
            for each in observed.json("traces", "--destination", "worker", "--since", "5m")
            if "worker" in each["services"]
        ]
        return bool(found)

    wait_until(told)
    return str(found[0]["id"])


def test_a_trace_is_found_and_shown_as_a_waterfall(observed: Weft, trace_id: str) -> None:
    listed = observed.ok("traces", "--service", "worker")
    assert trace_id in listed
    shown = observed.ok("trace", trace_id)
    assert "█" in shown
    assert "invoke_agent worker" in shown
    assert observed.json("trace", trace_id[:20])["id"] == trace_id
    assert observed.json("traces", "--service", "nobody") == []
    assert observed.run("trace", "00" * 16).returncode == 4
    assert observed.run("trace", "no-id").returncode == 2
