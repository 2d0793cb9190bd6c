"""Leaving without dropping a call."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from weft.aio.poll import until
from weft.errors import MeshError
from weft.model.agent import Status
from weft.sidecar.admin import AdminUnavailable
from weft.sidecar.envoy import Envoy
from weft.sidecar.registration import Registration

logger = logging.getLogger(__name__)

_ANNOUNCE_TIMEOUT = 3.0
_POLL_LONGEST = 0.2


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
        left = await envoy.in_flight()
        logger.warning("%d calls had not ended after %g s of draining; giving them up", left, timeout)


async def _close(envoy: Envoy) -> None:
    async def idle() -> bool:
        return await envoy.in_flight() == 0

    # An Envoy that is down takes no calls either.
    with suppress(AdminUnavailable):
        await envoy.admin.begin_drain()
    await until(idle, longest=_POLL_LONGEST)
    with suppress(AdminUnavailable):
        await envoy.admin.close_inbound()
    # One may have come in while the last one ended.
    await until(idle, longest=_POLL_LONGEST)
