"""How `weft up` starts, fails and ends; nothing is ever left of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from tests.e2e.weft_cli import (
    EXAMPLES,
    PAUSE,
    START_TIMEOUT,
    TIMEOUT,
    Weft,
    agent_manifest,
    interrupt,
    wait_for_line,
    weft_user,
)

from weft.controlplane.sealing import make_key_file
from weft.local.ports import free_ports

FOREIGN = EXAMPLES / "foreign_agent.py"

STARTING = ("--port-base", "0", "--timeout", str(START_TIMEOUT))

UNHEALTHY = agent_manifest("counter", FOREIGN).replace('"interval"', '"path": "/nope", "interval"')
"""An agent that answers, but not where it is asked how it is."""


@pytest.fixture
def weft() -> Iterator[Weft]:
    """A user, of whom nothing may be left after the test."""
    with weft_user() as user:
        yield user


def test_what_was_declared_is_there_after_ctrl_c_and_neither_that_nor_sigkill_leaves_anything(
    weft: Weft,
) -> None:
    weft.write("one.yaml", agent_manifest("counter", FOREIGN))
    up = weft.start("up", "one.yaml", *STARTING)
    said = "".join(wait_for_line(up, "Ctrl-C stops"))
    assert re.search(r"counter-1 +ready", said)
    assert "Try next" in said
    assert weft.ok("call", "counter", "count", "text=a b c") == "3\n"
    code, rest = interrupt(up)
    assert code == 0, rest
    assert "stopping" in rest
    weft.assert_nothing_left()
    assert weft.run("status").returncode == 3

    up = weft.start("up", *STARTING)
    wait_for_line(up, "Ctrl-C stops")
    assert weft.ok("call", "counter", "count", "text=a b") == "2\n"
    assert len(weft.processes()) > 8, "a mesh, a door, a sidecar, their Envoys, a program and guards"
    os.kill(up.pid, signal.SIGKILL)
    up.communicate(timeout=TIMEOUT)
    weft.assert_nothing_left()
    assert weft.run("status").returncode == 3


SLOW_AGENT = """
import os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Slow(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        time.sleep(600)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Slow).serve_forever()
"""


def test_a_mesh_goes_on_without_an_agent_that_is_not_healthy_and_a_second_ctrl_c_waits_for_no_call(
    weft: Weft,
) -> None:
    slow = agent_manifest("slow", weft.write("slow.py", SLOW_AGENT)).replace(
        '"drainTimeout": "5s"', '"drainTimeout": "1h"'
    )
    weft.write("mesh.yaml", f"{slow}---\n{UNHEALTHY}")
    up = weft.start("up", "--port-base", "0", "--timeout", "4")
    said = "".join(wait_for_line(up, "Ctrl-C stops"))
    assert "warning: not healthy after 4 s: " in said
    assert "counter-1 is starting" in said
    assert weft.json("agents", "counter", "--status", "healthy") == []

    while weft.json("agents", "slow", "--status", "healthy") == []:
        assert up.poll() is None
        time.sleep(PAUSE)
    call = weft.start("call", "slow", "work", "--timeout", "600")
    while weft.json("agents", "slow")[0]["inFlight"] == 0:
        assert call.poll() is None
        time.sleep(PAUSE)
    os.killpg(up.pid, signal.SIGINT)
    wait_for_line(up, "stopping")
    with pytest.raises(subprocess.TimeoutExpired):
        up.wait(timeout=3)
    code, rest = interrupt(up)
    assert code == 0, rest
    assert "restarting" not in rest
    assert "could not be withdrawn" not in rest
    assert call.wait(timeout=TIMEOUT) != 0
    call.communicate()


def test_ctrl_c_while_it_starts_leaves_nothing(weft: Weft) -> None:
    up = weft.start("up", "--port-base", "0")
    wait_for_line(up, "control")
    interrupt(up)
    weft.assert_nothing_left()


def test_meshes_of_different_names_run_side_by_side_and_forget_what_was_declared_when_told_to(
    weft: Weft,
) -> None:
    weft.write("none.yaml", agent_manifest("counter", FOREIGN, replicas=0))
    started = [
        json.loads(weft.up("none.yaml", "--output", "json")),
        json.loads(weft.up("--mesh", "lab", "--output", "json")),
    ]
    ports = [each["ports"] for each in started]
    assert ports == [weft.json("status", "--mesh", name)["ports"] for name in ("default", "lab")]
    assert not set(ports[0].values()) & set(ports[1].values())
    assert [each["metadata"]["name"] for each in weft.json("get", "agents")] == ["counter"]
    weft.ok("down", "--mesh", "lab")
    assert weft.run("status", "--mesh", "lab").returncode == 3
    assert weft.json("down") == {"name": "default", "stopped": True}
    weft.up("--fresh")
    assert weft.json("get", "agents") == []
    weft.ok("down")


@pytest.mark.parametrize("detach", [[], ["-d"]], ids=["foreground", "detached"])
def test_a_port_in_use_is_named_with_the_way_out(weft: Weft, detach: list[str]) -> None:
    base = free_ports().api
    with socket.create_server(("127.0.0.1", base)):
        done = weft.run("up", "--port-base", str(base), *detach)
    assert done.returncode == 1
    assert f"port {base}, meant for the control plane's API, is in use" in done.stderr
    assert "--port-base" in done.stderr
    weft.assert_nothing_left()


@pytest.mark.parametrize("detach", [[], ["-d"]], ids=["foreground", "detached"])
def test_a_wrong_manifest_starts_nothing(weft: Weft, detach: list[str]) -> None:
    wrong = agent_manifest("counter", FOREIGN).replace('"version"', '"versoin"')
    weft.write("mesh.yaml", wrong)
    done = weft.run("up", "--port-base", "0", *detach)
    assert done.returncode == 2
    assert "mesh.yaml:1: spec.versoin:" in done.stderr
    weft.assert_nothing_left()


def test_an_agent_whose_program_does_not_exist_fails_the_start_soon_and_leaves_nothing(weft: Weft) -> None:
    manifest = agent_manifest("counter", FOREIGN).replace(json.dumps(sys.executable), '"/does/not/exist"')
    weft.write("mesh.yaml", manifest)
    done = weft.run("up", "-d", *STARTING)
    assert done.returncode == 1
    assert "counter-1 does not start: it ended with exit code 127" in done.stderr
    assert "/does/not/exist" in done.stderr
    weft.assert_nothing_left()


def test_an_agent_that_never_becomes_healthy_fails_a_detached_start_with_the_reason(weft: Weft) -> None:
    weft.write("mesh.yaml", UNHEALTHY)
    said = ""
    for limit in (8, 30, 100):  # on a busy machine it has not been asked yet how it is
        done = weft.run("up", "-d", "--port-base", "0", "--timeout", str(limit))
        said = done.stderr
        assert done.returncode == 1
        assert "counter-1 is starting" in said
        weft.assert_nothing_left()
        if "404" in said:
            break
    assert "404" in said


def test_a_home_that_cannot_be_written_is_told(weft: Weft) -> None:
    (weft.directory / "home").write_text("not a directory")
    done = weft.run("up", "--port-base", "0")
    assert done.returncode == 1
    assert "WEFT_HOME" in done.stderr


def test_an_unreachable_nats_is_named(weft: Weft) -> None:
    ports = free_ports()
    nats = f"nats://127.0.0.1:{ports.nats}"
    addresses = (
        "--nats",
        nats,
        "--api-port",
        str(ports.api),
        "--xds-port",
        str(ports.xds),
        "--metrics-port",
        "0",
    )
    make_key_file(weft.directory / "sealing.key")
    done = weft.run("control", *addresses, "--sealing-key", f"file:{weft.directory / 'sealing.key'}")
    assert done.returncode == 3
    assert f"127.0.0.1:{ports.nats}" in done.stderr


def test_a_control_plane_that_cannot_seal_anything_does_not_start(weft: Weft) -> None:
    done = weft.run("control")
    assert done.returncode == 2
    assert "--sealing-key" in done.stderr


def test_the_processes_take_their_own_options(weft: Weft) -> None:
    assert "--xds-port" in weft.ok("control", "--help")
    assert "--health-path" in weft.ok("sidecar", "--help")


def test_check_tells_what_the_machine_lacks(weft: Weft) -> None:
    findings = weft.json("check")
    levels = {each["what"]: each["level"] for each in findings}
    assert levels["Envoy"] == levels["NATS server"] == levels["Python"] == "ok"
    weft.environ["TMPDIR"] = str(weft.directory / "missing")
    weft.environ["http_proxy"] = "http://proxy:3128"
    shown = weft.ok("check")
    assert "http_proxy" in shown
