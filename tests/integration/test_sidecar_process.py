"""A sidecar's processes, with the real Envoy and real programs."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest
from tests.authority import authority_api
from tests.integration.sidecar_control import Control, control_plane, xds_server
from tests.integration.sidecar_process import SidecarProcess, alive, eventually, sidecar

from weft.aio.ports import reserve_port
from weft.model.node import Address
from weft.sidecar.exit_codes import ExitCode


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    async with control_plane(tmp_path) as control:
        yield control


def script(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


FETCH = """
from urllib.error import HTTPError
from urllib.request import urlopen
try:
    urlopen("http://agent.mesh/")
except HTTPError as error:
    print("answered", error.code)
"""

FOR_EVER = script("echo started; while true; do sleep 0.05; done")


@pytest.mark.parametrize(("text", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -s KILL $$", 137)])
async def test_the_programs_exit_code_is_the_sidecars(
    tmp_path: Path, control: Control, text: str, code: int
) -> None:
    async with sidecar(tmp_path, control, command=script(text)) as running:
        assert await running.exit_code() == code


async def test_the_program_finds_its_proxy_ready(tmp_path: Path, control: Control) -> None:
    async with sidecar(tmp_path, control, command=(sys.executable, "-c", FETCH)) as running:
        assert await running.exit_code() == 0
        assert "answered 404" in running.log


async def test_arguments_and_environment_reach_the_program_untouched(
    tmp_path: Path, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREETING", "hello world")
    command = (*script('echo "$GREETING|$1|$2|$WEFT_INSTANCE|$WEFT_CONTROL"'), "name", "a b", "--type")
    async with sidecar(tmp_path, control, instance="me", command=command) as running:
        assert await running.exit_code() == 0
        assert "hello world|a b|--type|me|http://control.mesh" in running.log


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
async def test_other_signals_are_the_programs_business(
    tmp_path: Path, control: Control, number: signal.Signals
) -> None:
    name = number.name.removeprefix("SIG")
    program = script(
        f"trap 'echo heard {name}; exit 3' {name}; echo started; while true; do sleep 0.05; done"
    )
    async with sidecar(tmp_path, control, command=program) as running:
        await running.logs("started")
        running.send(number)
        assert await running.exit_code() == 3
        assert f"heard {name}" in running.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_program_that_only_calls_gets_the_signal_that_stops_the_sidecar(
    tmp_path: Path, control: Control, number: signal.Signals
) -> None:
    program = script(f"trap 'exit 5' {number.name[3:]}; echo started; while true; do sleep 0.05; done")
    async with sidecar(tmp_path, control, command=program) as running:
        await running.logs("started")
        family = running.family()
        running.send(number)
        assert await running.exit_code() == 5
    assert not any(alive(each) for each in family)


async def test_a_program_that_ignores_signals_is_killed_at_the_third(
    tmp_path: Path, control: Control
) -> None:
    program = script("trap '' TERM INT; echo started; while true; do sleep 0.05; done")
    async with sidecar(tmp_path, control, "--stop-timeout", "60", command=program) as running:
        await running.logs("started")
        for _ in range(3):
            await running.hears(signal.SIGINT)
        assert await running.exit_code() == 128 + signal.SIGKILL


async def test_a_program_that_ignores_sigterm_is_killed_when_its_time_is_up(
    tmp_path: Path, control: Control
) -> None:
    program = script("trap '' TERM; echo started; while true; do sleep 0.05; done")
    async with sidecar(tmp_path, control, "--stop-timeout", "0.2", command=program) as running:
        await running.logs("started")
        running.send(signal.SIGTERM)
        assert await running.exit_code() == 128 + signal.SIGKILL


async def test_nothing_survives_a_killed_sidecar(tmp_path: Path, control: Control) -> None:
    async with sidecar(
        tmp_path, control, command=script("sleep 300 & echo started; sleep 300; true")
    ) as running:
        await running.logs("started")
        family = running.family()
        assert len(family) == 5  # guard, Envoy, the shell and its two
        running.send(signal.SIGKILL)
        await running.exit_code()
        await eventually(lambda: not any(alive(each) for each in family), lambda: f"{family} survived")


async def test_an_envoy_that_dies_comes_back_on_its_ports_while_the_program_runs_on(
    tmp_path: Path, control: Control
) -> None:
    async with sidecar(tmp_path, control, command=FOR_EVER) as running:
        await running.logs("started")
        ports = await running.envoy_ports()
        shells = [each for each in running.family() if each.name() == "sh" and "-c" in each.cmdline()]
        # A program that it starts is a shell for a moment, too.
        program = [each for each in shells if each.parent() not in shells]
        for _ in range(2):
            envoy = running.envoy()
            envoy.kill()
            await eventually(lambda dead=envoy: not alive(dead), lambda: "Envoy did not die")  # type: ignore[misc]
            assert await running.envoy_ports() == ports
        assert all(alive(each) for each in program)
        assert "Envoy ended with exit code 137" in running.log


async def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path, control: Control) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = script("echo started")
        async with sidecar(tmp_path, control, "--outbound-port", str(port), command=command) as running:
            assert await running.exit_code() == ExitCode.UNAVAILABLE
            assert f"port {port} at 127.0.0.1 cannot be used" in running.log
            assert "started" not in running.log


async def test_a_gateways_port_in_use_is_named_before_anything_starts(
    tmp_path: Path, control: Control
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ("--type", "front", "--outside", f"127.0.0.1:{port}")
        async with sidecar(tmp_path, control, *options, command=script("echo started")) as running:
            assert await running.exit_code() == ExitCode.UNAVAILABLE
            assert f"port {port} at 127.0.0.1 cannot be used" in running.log
            assert "started" not in running.log


async def test_a_given_port_is_the_proxys(tmp_path: Path, control: Control) -> None:
    with reserve_port("127.0.0.1") as free:
        port = free.port
    async with sidecar(
        tmp_path, control, "--outbound-port", str(port), command=script("echo $HTTP_PROXY")
    ) as running:
        assert await running.exit_code() == 0
        assert f"http://127.0.0.1:{port}\n" in running.log


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("no-such-program",), ExitCode.NOT_FOUND, "program 'no-such-program' was not found along PATH"),
        (("/etc/passwd",), ExitCode.CANNOT_EXECUTE, "'/etc/passwd' is not an executable program"),
    ],
)
async def test_a_program_that_cannot_run_is_told_as_a_shell_does(
    tmp_path: Path, control: Control, command: tuple[str, ...], code: ExitCode, words: str
) -> None:
    async with sidecar(tmp_path, control, command=command) as running:
        assert await running.exit_code() == code
        assert words in running.log


async def test_settings_that_make_no_sense_end_it_at_once(tmp_path: Path, control: Control) -> None:
    async with sidecar(tmp_path, control, "--capability", "Not A Name") as running:
        assert await running.exit_code() == ExitCode.INVALID
        assert "capability 'Not A Name' is not a valid name" in running.log
        assert "Traceback" not in running.log


async def test_a_sidecar_waits_for_its_configuration_and_says_so(tmp_path: Path) -> None:
    with reserve_port("127.0.0.1") as free:
        port = free.port
    nobody = Address("127.0.0.1", port)
    async with (
        authority_api(tmp_path) as api,
        sidecar(tmp_path, Control(api, nobody), command=script("echo hello")) as running,
    ):
        await running.logs(
            f"waiting for configuration from the control plane (127.0.0.1:{port}: Connection refused"
        )
        assert "hello" not in running.log
        async with xds_server(api, port):
            assert await running.exit_code() == 0


async def test_a_sidecar_that_still_waits_can_be_stopped(control: Control, tmp_path: Path) -> None:
    with reserve_port("127.0.0.1") as free:
        nobody = Control(control.api, Address("127.0.0.1", free.port))
        async with sidecar(tmp_path, nobody, command=FOR_EVER) as running:
            await eventually(lambda: len(running.family()) == 2, lambda: running.log)
            running.send(signal.SIGTERM)
            assert await running.exit_code() == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_sidecar_without_a_program_is_a_door_until_it_is_stopped(
    tmp_path: Path, control: Control, number: signal.Signals
) -> None:
    async with sidecar(tmp_path, control) as running:
        (port,) = await running.envoy_ports()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        running.send(number)
        assert await running.exit_code() == ExitCode.OK


@asynccontextmanager
async def sidecars(directory: Path, control: Control, count: int) -> AsyncIterator[list[SidecarProcess]]:
    async with AsyncExitStack() as stack:
        running = []
        for number in range(count):
            home = directory / str(number)
            home.mkdir()
            running.append(await stack.enter_async_context(sidecar(home, control)))
        yield running


@pytest.mark.timeout(240)  # other tests run beside
async def test_ten_sidecars_keep_to_their_memory_budget(tmp_path: Path, control: Control) -> None:
    megabyte = 1024 * 1024
    async with sidecars(tmp_path, control, 10) as running:
        for each in running:
            await each.envoy_ports()
        envoys = [each.envoy().memory_full_info().pss / megabyte for each in running]
        pythons = [psutil.Process(each.process.pid).memory_full_info().pss / megabyte for each in running]
        for each in running:
            each.send(signal.SIGTERM)
        assert [await each.exit_code() for each in running] == [ExitCode.OK] * 10
    print(f"PSS of ten: Envoy {max(envoys):.1f} MB, Python {max(pythons):.1f} MB")
    assert max(envoys) < 45
    assert max(pythons) < 60
