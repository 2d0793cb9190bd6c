"""What each caller sees is worked out once for all who are alike, and again only where something changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.tool_lists import PLANNER, ToolMesh, offering, tool, tool_mesh

from weft.aio.poll import until
from weft.controlplane.identities import Identity
from weft.controlplane.mcp.listing import Listing, ListKind
from weft.model.agent import Status
from weft.model.spiffe import SpiffeId, agent_id

OTHER = agent_id("weft.local", "planner", "p-2")
POLICY = """
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: labelled}
spec: {from: [%s], to: [{type: files}], effect: deny}
"""


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[ToolMesh]:
    async with tool_mesh(tmp_path) as mesh:
        await mesh.offer("files", offering(tool("read")))
        await mesh.offer("web", offering(tool("search")))
        yield mesh


async def eventually(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    async with asyncio.timeout(30):
        await until(holds)


async def sees(listing: Listing, who: SpiffeId, *names: str) -> None:
    await eventually(lambda: [each.name for each in listing.of(who).tools] == list(names))


async def test_those_whom_no_policy_tells_apart_see_the_same_object(mesh: ToolMesh) -> None:
    listing = mesh.replicas[0].server.listing
    await sees(listing, PLANNER, "read", "search")
    assert listing.of(OTHER) is listing.of(PLANNER)

    await mesh.declare(POLICY % "{instance: planner/p-2}")
    await sees(listing, OTHER, "search")
    await sees(listing, PLANNER, "read", "search")


async def test_what_instances_do_changes_nothing_as_long_as_their_lists_are_the_same(mesh: ToolMesh) -> None:
    listing = mesh.replicas[0].server.listing
    await sees(listing, PLANNER, "read", "search")
    everything, seen = listing.all, listing.of(PLANNER)

    await mesh.offer("files", offering(tool("read")), id_="two")
    await mesh.becomes("files", "one", Status.UNHEALTHY)
    statuses = {("one", Status.UNHEALTHY), ("two", Status.HEALTHY)}
    offers = mesh.replicas[0].offers
    await eventually(lambda: {(it.id, it.status) for it, _ in offers.by_type["files"]} == statuses)
    assert listing.all is everything
    assert listing.of(PLANNER) is seen

    await mesh.offer("last", offering(tool("z")))
    await sees(listing, PLANNER, "read", "z", "search")


async def test_a_caller_is_told_when_what_was_attested_of_it_changes_what_it_sees(mesh: ToolMesh) -> None:
    listing, identities = mesh.replicas[0].server.listing, mesh.replicas[0].identities
    await mesh.declare(POLICY % "{labels: {team: a}}")
    await sees(listing, PLANNER, "read", "search")
    running = asyncio.create_task(listing.run())
    changes = listing.changes(PLANNER, listing.of(PLANNER))
    now = time.time()
    try:
        await identities.note(Identity(str(PLANNER), "1", now, now + 60, "token", {"team": "a"}))
        async with asyncio.timeout(30):
            assert await anext(changes) == {ListKind.TOOLS}
        await sees(listing, PLANNER, "search")
        assert [each.name for each in listing.of(OTHER).tools] == ["read", "search"]
    finally:
        running.cancel()
        await changes.aclose()
