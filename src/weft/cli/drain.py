"""`weft drain`: have an instance leave."""

from __future__ import annotations

import asyncio
from typing import Annotated

from cyclopts import Parameter

from weft.aio.poll import until
from weft.cli.api import control_api
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import print_json
from weft.errors import InvalidRequest, NotFound, TimedOut
from weft.local.control import ControlApi

DEFAULT_TIMEOUT = 120.0
"""Seconds that an instance has to leave, where somebody waits for it."""

_HERE = ControlPlane()


async def drain(
    instance: Annotated[str, Parameter(help="TYPE/INSTANCE, as `weft agents` lists them.")],
    /,
    *,
    wait: Annotated[
        bool, Parameter(help="Return once it has left.", negative="", show_default=False)
    ] = False,
    timeout: Annotated[float, Parameter(help="With --wait: seconds that it has to leave.")] = DEFAULT_TIMEOUT,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Have an instance take no more calls, finish those it has, and stop, as upon SIGTERM.

    A mesh of `weft up` starts another one in its place; elsewhere that is up to whoever runs it. Exit code 7
    where its sidecar does not begin, or with --wait does not end in time.
    """
    agent_type, slash, name = instance.partition("/")
    if not (agent_type and slash and name):
        raise InvalidRequest(
            f"{instance[:200]!r} is no instance: write TYPE/INSTANCE, as `weft agents` lists them"
        )
    async with control_api(where) as api:
        before = await api.agent(agent_type, name)
        await api.drain(agent_type, name)
        if wait:
            await _left(api, agent_type, name, before["startedAt"], timeout)
    if output is Output.JSON:
        print_json({"type": agent_type, "id": name, "state": "left" if wait else "draining"})
    else:
        print(f"{instance} {'has left' if wait else 'drains'}")


async def _left(api: ControlApi, agent_type: str, name: str, started_at: float, timeout: float) -> None:
    """Wait until the instance is gone, or another one has its name."""

    async def gone() -> bool:
        try:
            return bool((await api.agent(agent_type, name))["startedAt"] != started_at)
        except NotFound:
            return True

    try:
        async with asyncio.timeout(timeout):
            await until(gone)
    except TimeoutError:
        raise TimedOut(
            f"{agent_type}/{name} has not left within {timeout:g} s: it still has calls to end"
        ) from None
