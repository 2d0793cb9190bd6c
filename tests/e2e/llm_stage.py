"""A mesh with models: simulated providers in this process, and sidecars through which OpenAI clients call."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from tests.binaries import WEFT
from tests.e2e.leftovers import Scope, scope
from tests.e2e.meshes import eventually
from tests.processes import Core, Program, accepts, core

from weft.aio.ports import reserve_port
from weft.errors import Unavailable
from weft.llm_sim.behaviour import Behaviour, changed
from weft.llm_sim.server import serving
from weft.llm_sim.simulator import Simulator
from weft.local.control import ControlApi
from weft.local.llm_control import LlmApi
from weft.sidecar.envoy import admin_socket

T = TypeVar("T")

LIMIT = 60.0
"""Seconds in which anything waited for happens."""

RECORDED = 100
"""Requests that a provider remembers."""


class Provider:
    """A simulated provider: told here how to behave, and asked what it saw."""

    def __init__(self, simulator: Simulator, port: int) -> None:
        self._simulator = simulator
        self._usual = simulator.behaviour
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v1"

    def behave(self, **changes: Any) -> None:
        """As usual, but for these fields of Behaviour (as in YAML)."""
        self._simulator.behaviour = changed(self._usual, changes)

    @property
    def stats(self) -> dict[str, Any]:
        """What it counted since the last `reset`."""
        return self._simulator.stats()

    def reset(self) -> None:
        """Count from nothing again."""
        self._simulator.reset()

    async def requests(self) -> list[dict[str, Any]]:
        """The last requests it got, the last one last."""
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT) as http:
            answer = await http.get(f"http://127.0.0.1:{self.port}/sim/requests")
        return list(answer.raise_for_status().json())


@asynccontextmanager
async def provider(keys: Mapping[str, str] | None = None, **behaviour: Any) -> AsyncIterator[Provider]:
    """A provider that answers at once, unless `behaviour` (as in YAML) says otherwise."""
    usual = changed(Behaviour(), {"firstToken": "0s", "tokensPerSecond": 0, **behaviour})
    simulator = Simulator(usual, keys=keys)
    async with serving(simulator, "127.0.0.1", 0, record=RECORDED) as port:
        yield Provider(simulator, port)


class Stage:
    """Core, a second replica of the control plane if wanted, and sidecars with nothing beside them."""

    def __init__(self, mesh: Core, inside: Scope) -> None:
        self.core = mesh
        self.scope = inside
        self.controls: dict[str, Program] = {"control": mesh.control}
        self.sidecars: dict[str, Program] = {}
        self._apis = {"control": mesh.ports.api}
        self.ports: dict[str, int] = {}
        """Of the sidecars' outbound listeners."""

    def client(self, name: str, **options: Any) -> AsyncOpenAI:
        """OpenAI's own client, at a sidecar; it repeats nothing. Close it."""
        settings: dict[str, Any] = {
            "api_key": "nobody reads it",
            "max_retries": 0,
            "timeout": LIMIT,
            **options,
        }
        # Without the environment's proxies.
        http = DefaultAsyncHttpxClient(trust_env=False)
        return AsyncOpenAI(base_url=f"http://127.0.0.1:{self.ports[name]}/v1", http_client=http, **settings)

    def raw(self, name: str) -> httpx.AsyncClient:
        """An HTTP client at a sidecar, for what OpenAI's would not send."""
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.ports[name]}/v1",
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
            timeout=LIMIT,
        )

    async def weft(self, *arguments: str) -> str:
        """What a command of `weft` says, that must succeed."""
        kept = {each: value for each, value in os.environ.items() if not each.startswith("WEFT_")}
        process = await asyncio.create_subprocess_exec(
            WEFT,
            *arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**kept, **self.core.operator_environ, "COLUMNS": "250"},
        )
        said, wrong = await asyncio.wait_for(process.communicate(), LIMIT)
        assert process.returncode == 0, f"weft {arguments}: {said!r} {wrong!r}"
        return said.decode()

    async def json(self, *arguments: str) -> Any:
        """What a command says, as JSON."""
        return json.loads(await self.weft(*arguments, "--output", "json"))

    def api(self) -> ControlApi:
        """The API of a replica of the control plane that runs; use as an async context manager."""
        running = next(name for name, each in self.controls.items() if each.running)
        return self.core.api(self._apis[running])

    async def apply(self, *documents: str) -> None:
        """Apply resources."""
        async with self.api() as api:
            await api.apply("---\n".join(documents), "test.yaml")

    async def pool(self, name: str) -> dict[str, Any]:
        """How a pool stood a moment ago."""
        return await self.asked(lambda api: api.pool(name))

    async def asked(self, question: Callable[[LlmApi], Awaitable[T]]) -> T:
        """What the control plane says of models, as soon as one of its replicas schedules them.

        One that a busy machine keeps from renewing its lead says for a moment that there is none.
        """
        answers: list[T] = []

        async def answered() -> bool:
            with suppress(Unavailable):
                async with self.api() as api:
                    answers.append(await question(LlmApi(api)))
            return bool(answers)

        await eventually(answered, lambda: "no replica schedules calls to models")
        return answers[0]

    async def pool_becomes(self, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until `holds` is true of how a pool stands."""
        found: dict[str, Any] = {}

        async def held() -> bool:
            found.update(await self.pool(name))
            return bool(found) and holds(found)

        await eventually(held, lambda: f"pool {name} stays {found}")
        return found

    async def offers(self, name: str, *models: str) -> None:
        """Wait until agents at a sidecar see just these models."""

        async def seen() -> bool:
            return await self._offered(name) == {*models}

        await eventually(seen, lambda: f"{name} never had {models}:\n{self.sidecars[name].log}")

    async def start(self, manifest: Sequence[str], sidecars: Sequence[str], controls: int) -> None:
        """Start everything, and wait until sidecars take calls."""
        await self.core.start()
        await self.apply(*manifest)
        more = [await self.add_control(f"control-{number}") for number in range(2, controls + 1)]
        for each in sidecars:
            self.add_sidecar(each, [self.core.ports.xds, *more])
        for each in sidecars:
            await self._listens(each)

    def stop(self) -> None:
        """Stop what `Core` does not."""
        programs = [*self.sidecars.values(), *self.controls.values()]
        for each in programs:
            if each.running:
                each.send(signal.SIGTERM)
        for each in programs:
            each.stop()

    async def add_control(self, name: str) -> int:
        """Start one more replica of the control plane; the port at which sidecars reach it."""
        program, ports = self.core.another_control(name)
        self.controls[name] = program
        self._apis[name] = ports.api
        program.start()

        async def serves() -> bool:
            assert program.running, program.log
            return await accepts(ports.xds)

        await eventually(serves, lambda: program.log)
        return ports.xds

    def add_sidecar(self, name: str, xds: Sequence[int]) -> None:
        """Start one that knows the replicas of the control plane at these ports."""
        with reserve_port("127.0.0.1") as reserved:
            port = self.ports[name] = reserved.port
        program = self.sidecars[name] = self.core.sidecar(
            name,
            f"--type={name.rpartition('-')[0]}",
            f"--outbound-port={port}",
            # Nobody calls these agents: what their sidecars watch is the door.
            f"--port={self.core.ports.proxy}",
            "--health-path=",
            "--health-interval=0.3",
            f"--xds={','.join(f'127.0.0.1:{each}' for each in xds)}",
            "--drain-grace=0",
        )
        program.start()

    async def envoy_shows(self, name: str) -> str:
        """All that the Envoy of a sidecar tells of itself."""
        children = psutil.Process(self.sidecars[name].pid).children()
        (command,) = [each.cmdline() for each in children if each.name().startswith("envoy")]
        runtime = Path(command[command.index("--config-path") + 1]).parent
        transport = httpx.AsyncHTTPTransport(uds=str(admin_socket(runtime)))
        pages = ("config_dump?include_eds", "certs", "clusters", "stats", "listeners", "server_info")
        async with httpx.AsyncClient(transport=transport, timeout=LIMIT) as admin:
            return "\n".join([(await admin.get(f"http://envoy/{each}")).text for each in pages])

    @property
    def logs(self) -> str:
        """What all processes have written."""
        programs = (self.core.nats, *self.controls.values(), self.core.door, *self.sidecars.values())
        return "\n".join(f"--- {each.name}\n{each.log}" for each in programs)

    async def _listens(self, name: str) -> None:
        async def takes_calls() -> bool:
            return await self._offered(name) is not None

        await eventually(takes_calls, lambda: f"{name} takes no calls:\n{self.sidecars[name].log}")

    async def _offered(self, name: str) -> set[str] | None:
        assert self.sidecars[name].running, self.sidecars[name].log
        async with self.raw(name) as http:
            try:
                answer = await http.get("/models")
            except httpx.TransportError:
                return None
        return {each["id"] for each in answer.json()["data"]} if answer.status_code == 200 else None


@asynccontextmanager
async def stage(
    directory: Path, manifest: Sequence[str], sidecars: Sequence[str], *, controls: int = 1
) -> AsyncIterator[Stage]:
    """A mesh with `manifest`, and sidecars named `<type>-<n>`. At its end nothing is left over."""
    with scope() as inside:
        with core(directory, inside.environ, lease_ttl=3.0) as mesh:
            found = Stage(mesh, inside)
            try:
                await found.start(manifest, sidecars, controls)
                yield found
                inside.note_ports()
            finally:
                await asyncio.to_thread(found.stop)
        await inside.check_empty()
