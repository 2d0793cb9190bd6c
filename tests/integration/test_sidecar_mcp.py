"""A sidecar beside an MCP server: what it reads is kept, and it does not hold up the server's end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests import mcp_servers
from tests.integration import mcp_stdio_server
from tests.integration.sidecar_control import control_plane
from tests.integration.sidecar_process import LIMIT, SidecarProcess, alive, eventually, sidecar
from tests.servers import nats_server

from weft.aio.poll import until
from weft.model.offer import McpGeneration, McpOffer
from weft.registry.offers import Offers
from weft.store.nats import NatsStore

pytestmark = pytest.mark.timeout(180)

FOREIGN = (sys.executable, str(Path(mcp_servers.__file__)))
ON_PIPES = (sys.executable, str(Path(mcp_stdio_server.__file__)))


@asynccontextmanager
async def beside(
    directory: Path, protocol: str, *command: str
) -> AsyncIterator[tuple[SidecarProcess, Offers]]:
    """A sidecar of type `box` and id `t1`, which starts the server; and what is kept of offers."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(nats_server(directory))
        control = await stack.enter_async_context(control_plane(directory))
        store = await NatsStore.connect([nats.url], name="test")
        stack.push_async_callback(store.close)
        options = ("--type", "box", "--protocol", protocol, "--drain-grace", "0.2", "--stop-timeout", "30")
        starting = sidecar(directory, control, *options, command=command, instance="t1", nats=nats.url)
        yield await stack.enter_async_context(starting), await Offers.open(store)


async def offered(process: SidecarProcess, offers: Offers) -> McpOffer:
    """What the server offers, once that is known."""
    found: list[McpOffer] = []

    async def known() -> bool:
        entry = await offers.bucket.get("box.t1")
        if entry is not None and entry.value.mcp is not None:
            found.append(entry.value.mcp)
        return bool(found)

    try:
        async with asyncio.timeout(LIMIT):
            await until(known)
    except TimeoutError:
        raise AssertionError(f"nothing is offered\n{process.log}") from None
    return found[0]


async def test_what_a_server_lists_is_kept_as_long_as_it_runs(tmp_path: Path) -> None:
    async with beside(tmp_path, "mcp", *FOREIGN, "--patient") as (process, offers):
        offer = await offered(process, offers)
        assert (offer.generation, offer.tools[0]["name"]) == (McpGeneration.STATELESS, "echo")
        # After server/discover and four lists comes the stream of changes.
        await eventually(lambda: process.log.count('"POST /mcp HTTP/1.1" 200') > 5, lambda: process.log)
        process.send(signal.SIGTERM)
        # Not 137: the server waits until all streams are closed, and nobody had to kill it.
        assert await process.exit_code() in {0, 128 + signal.SIGTERM}
        assert await offers.bucket.get("box.t1") is None


async def test_a_server_on_pipes_is_wrapped(tmp_path: Path) -> None:
    async with beside(tmp_path, "mcp-stdio", *ON_PIPES) as (process, offers):
        offer = await offered(process, offers)
        assert (offer.generation, offer.tools[0]["name"]) == (McpGeneration.STATELESS, "echo")
        process.send(signal.SIGTERM)
        assert await process.exit_code() == 0


async def test_a_server_on_pipes_ends_with_a_sidecar_that_is_killed(tmp_path: Path) -> None:
    async with beside(tmp_path, "mcp-stdio", *ON_PIPES) as (process, offers):
        await offered(process, offers)
        family = process.family()
        assert any("mcp_stdio_server" in " ".join(each.cmdline()) for each in family)
        process.send(signal.SIGKILL)
        await eventually(
            lambda: not any(alive(each) for each in family),
            lambda: f"{[each for each in family if alive(each)]} live on",
        )
