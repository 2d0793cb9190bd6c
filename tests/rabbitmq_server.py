"""A real RabbitMQ for tests, on loopback: Debian's, whoever runs the tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.server_process import HOST, ServerProcess
from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.ports import reserve_port

# Not the wrapper in /usr/sbin, which insists on its own user.
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_EPMD = Path("/usr/bin/epmd")
_CALL = Path("/usr/bin/erl_call")

_GUEST = {"authorization": "Basic Z3Vlc3Q6Z3Vlc3Q="}

MISSING = (
    None
    if _SERVER.exists() and _EPMD.exists() and _CALL.exists()
    else "rabbitmq-server is not installed: apt-get install rabbitmq-server"
)
"""Why it cannot be started here; None if it can."""


class RabbitServer(ServerProcess):
    """A rabbitmq-server that can be killed and brought back at the same ports with the same data."""

    program = "rabbitmq-server"
    start_limit = 120.0

    def __init__(self, directory: Path, guard: Guard) -> None:
        """`guard` ends it, and its epmd, if the test runner is killed."""
        super().__init__(directory, guard)
        self._epmd: Child | None = None
        self.port, self.management_port, self._distribution, self._epmd_port = _free_ports(4)

    @property
    def url(self) -> str:
        """Where clients connect, without user and password."""
        return f"amqp://{HOST}:{self.port}"

    @property
    def management_url(self) -> str:
        """Where the management plugin listens."""
        return f"http://{HOST}:{self.management_port}"

    @property
    def username(self) -> str:
        """Who may do everything; the password is the same."""
        return "guest"

    async def stop(self) -> None:
        """Kill it and its epmd."""
        await self.kill()
        epmd, self._epmd = self._epmd, None
        if epmd is not None:
            await epmd.stop(grace=1.0)

    async def settle(self) -> None:
        """Have it write down which queues it has, as it does by itself some seconds after they were declared.

        What is declared just before a SIGKILL is lost, with what was confirmed in it: so it is with RabbitMQ.
        """
        await self._evaluate("[dets:sync(Table) || Table <- dets:all()]")

    async def raise_alarm(self) -> None:
        """Have it believe that the disk is full: it blocks whoever publishes."""
        await self._evaluate("rabbit_alarm:set_alarm({{resource_limit, disk, node()}, []})")

    async def clear_alarm(self) -> None:
        """Take that back."""
        await self._evaluate("rabbit_alarm:clear_alarm({resource_limit, disk, node()})")

    async def stop_delays(self) -> None:
        """Have it lose what moves expired messages on, as it does when that has failed too often.

        It does not come back until the server does (https://github.com/rabbitmq/rabbitmq-server/issues/16652).
        """
        await self._evaluate("ok = supervisor:terminate_child(rabbit_sup, rabbit_fifo_dlx_sup)")

    async def _launch(self) -> Child:
        self._configure()
        if self._epmd is None:
            # A node that finds none would start one of its own, which outlives it.
            self._epmd = await self._spawn([str(_EPMD), "-port", str(self._epmd_port), "-address", HOST])
        return await self._spawn([str(_SERVER)])

    async def _evaluate(self, expression: str) -> None:
        said = self._log.stat().st_size
        # By Erlang's own: rabbitmqctl takes seconds to begin.
        control = await self._spawn([str(_CALL), "-name", self._node, "-e"], given=f"{expression}, ok.\n")
        assert await control.wait() == 0, self._log_text()
        assert "{ok, ok}" in self._log.read_bytes()[said:].decode(errors="replace"), self._log_text()

    def _configure(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "plugins").write_text("[rabbitmq_management].\n")
        # As Erlang has it: RabbitMQ takes a second to translate a rabbitmq.conf.
        (self._directory / "advanced.config").write_text(
            f"""[{{rabbit, [{{tcp_listeners, [{{"{HOST}", {self.port}}}]}},
                           {{collect_statistics_interval, 500}},
                           {{disk_free_limit, 10000000}},
                           {{log, [{{console, [{{enabled, false}}]}}]}}]}},
                 {{rabbitmq_management, [{{tcp_config, [{{ip, "{HOST}"}},
                                                        {{port, {self.management_port}}}]}}]}}]."""
        )

    @property
    def _node(self) -> str:
        return f"weft{self.port}@{HOST}"

    @property
    def _environ(self) -> Mapping[str, str]:
        # No crash dump, which takes seconds to write; few threads, for there are many tests beside it.
        return {
            **os.environ,
            "HOME": str(self._directory),  # where the cookie is
            "RUNNING_UNDER_SYSTEMD": "true",  # the node takes the place of the script that starts it
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_MNESIA_BASE": str(self._directory / "data"),
            "RABBITMQ_LOG_BASE": str(self._directory / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._directory / "none"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._directory / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self._directory / "generated"),
            "RABBITMQ_PID_FILE": str(self._directory / "pid"),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                # What is moved to a lane that is not there again yet after a start is moved anew no sooner.
                "-rabbit dead_letter_worker_publisher_confirm_timeout 3000 "
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_CRASH_DUMP_SECONDS": "0",
        }

    async def _spawn(self, command: Sequence[str], *, given: str = "") -> Child:
        """Start a program, which reads `given`."""
        self._directory.mkdir(parents=True, exist_ok=True)
        source = self._directory / "given"
        source.write_text(given)
        with self._log.open("ab") as log, source.open("rb") as stdin:
            return await spawn(
                command,
                guard=self._guard,
                environ=self._environ,
                stdin=stdin.fileno(),
                stdout=log.fileno(),
                stderr=log.fileno(),
                directory=self._directory,
            )

    @property
    def _log(self) -> Path:
        return self._directory / "output.log"

    def _log_text(self) -> str:
        logs = [self._log, *sorted((self._directory / "log").glob("*.log"))]
        return "\n".join(each.read_text(errors="replace")[-4000:] for each in logs if each.exists())

    async def _takes_clients(self) -> bool:
        return await self._greets() and await self._manages()

    async def _greets(self) -> bool:
        """Whether it answers the protocol's header: its port is open before it can."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        try:
            writer.write(b"AMQP\x00\x00\x09\x01")
            async with asyncio.timeout(1.0):
                return bool(await reader.read(1))
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()

    async def _manages(self) -> bool:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{self.management_url}/api/overview", headers=_GUEST) as answer,
            ):
                return answer.status == 200
        except (OSError, aiohttp.ClientError):
            return False


def _free_ports(count: int) -> list[int]:
    held = [reserve_port(HOST) for _ in range(count)]
    for each in held:
        each.release()
    return [each.port for each in held]


@asynccontextmanager
async def rabbitmq_server(directory: Path) -> AsyncIterator[RabbitServer]:
    """A running rabbitmq-server that keeps its data in `directory`; gone when the context is left."""
    async with Guard(grace=0.1) as guard:
        server = RabbitServer(directory, guard)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
