"""Leaving without dropping a call."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from weft.aio.poll import until
from weft.errors import MeshError
from weft.model.agent import Status
from weft.sidecar.admin import AdminUnavailable, Callers
from weft.sidecar.envoy import Envoy
from weft.sidecar.registration import Registration

logger = logging.getLogger(__name__)

_ANNOUNCE_TIMEOUT = 3.0
_POLL_LONGEST = 0.2
_SILENCE: Final = 2.0
"""Seconds for which a caller that has connected, and has not said anything yet, is waited for."""


async def drain(registration: Registration, envoy: Envoy, *, grace: float, timeout: float) -> None:
    """Stop taking calls, and wait until those in flight have ended.

    Callers are told first. For `grace` seconds, until all of them have heard, calls are still expected; then
    connections are closed as they fall idle. Calls that last longer than `timeout` seconds are given up.
    """
    registration.report(Status.DRAINING, "draining")
    try:
        async with asyncio.timeout(_ANNOUNCE_TIMEOUT):
            await registration.publish()
    except (MeshError, TimeoutError) as error:
        logger.warning("the drain could not be announced: %s", error)
    try:
        async with asyncio.timeout(timeout + grace):
            await asyncio.sleep(grace)
            await _close(envoy)
    except TimeoutError:
        left = (await _callers(envoy)).calls
        logger.warning("%d calls had not ended after %g s of draining; giving them up", left, timeout)


async def _close(envoy: Envoy) -> None:
    async def idle() -> bool:
        return not (await _callers(envoy)).calls

    async def silent() -> bool:
        return not any(await _callers(envoy))

    with suppress(AdminUnavailable):
        await envoy.admin.begin_drain()
    await until(idle, longest=_POLL_LONGEST)
    with suppress(AdminUnavailable):
        await envoy.admin.close_inbound()
    # Some connected while the last call ended, and have not called yet.
    with suppress(TimeoutError):
        async with asyncio.timeout(_SILENCE):
            await until(silent, longest=_POLL_LONGEST)
    await until(idle, longest=_POLL_LONGEST)


async def _callers(envoy: Envoy) -> Callers:
    try:
        return await envoy.admin.callers()
    except AdminUnavailable:  # it takes no calls either
        return Callers(0, 0)
