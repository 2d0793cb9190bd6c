"""NATS away for longer than the leases last: an outage of the store is not the death of every agent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.leftovers import scope
from tests.e2e.load import Journal, check, load
from tests.e2e.meshes import PROGRAMS, eventually
from tests.processes import Core, Program, core

import weft
from weft.local.control import ControlApi

LEASE = 2.0
ARGUMENTS = ("--type=worker", "--drain-grace=0")
WORKERS = ("worker-1", "worker-2", "worker-3")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "executions")


@dataclass
class Mesh:
    """A core and its workers."""

    core: Core
    workers: dict[str, Program]


@pytest.fixture
async def mesh(journal: Journal, tmp_path: Path) -> AsyncIterator[Mesh]:
    """A mesh of three workers whose leases are short."""
    with scope() as inside:
        with core(tmp_path, inside.environ, lease_ttl=LEASE) as parts, ExitStack() as ends:
            await parts.start()
            command = (sys.executable, str(PROGRAMS / "worker.py"), str(journal.path))
            workers = {name: parts.sidecar(name, *ARGUMENTS, command=command) for name in WORKERS}
            for each in workers.values():
                ends.callback(each.stop)
                each.start()
            async with parts.api() as api:
                await registered(api, *WORKERS)
            yield Mesh(parts, workers)
            inside.note_ports()
        await inside.check_empty()


async def registered(api: ControlApi, *names: str) -> None:
    """Wait until these workers are healthy, and no others are known."""

    async def they_are() -> bool:
        return {each["id"] for each in await api.agents([("type", "worker")])} == {*names}

    await eventually(they_are, lambda: f"{names} never were all of the workers")


async def test_an_outage_of_nats_longer_than_the_lease_is_not_taken_for_the_death_of_the_living(
    mesh: Mesh, journal: Journal
) -> None:
    async with (
        weft.Mesh(proxy=mesh.core.proxy_url) as client,
        mesh.core.api() as api,
        load(client) as calls,
    ):
        await calls.reaches(*WORKERS)
        mesh.core.nats.kill()
        # Nothing tells that a lease has run out while the store is away: only the clock does.
        await asyncio.sleep(2 * LEASE)
        await calls.reaches(*WORKERS)
        mesh.workers["worker-1"].kill_family()
        await calls.goes_on()
        mesh.core.nats.start()
        await mesh.core.serving(mesh.core.nats)
        await registered(api, "worker-2", "worker-3")
        await calls.reaches("worker-2", "worker-3")
    check(calls, journal)
