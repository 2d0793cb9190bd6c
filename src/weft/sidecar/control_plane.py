"""Saying what a sidecar waits for when its control plane does not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from weft.model.node import Address
from weft.sidecar.http import why

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 3.0
_LONGEST_PAUSE = 60.0
_CONNECT_TIMEOUT = 2.0


async def explain_wait(addresses: Sequence[Address]) -> None:
    """Log why Envoy has no configuration yet: after 3 s, then at growing intervals, until cancelled."""
    pause = _FIRST_PAUSE
    while True:
        await asyncio.sleep(pause)
        states = [f"{address}: {await _state(address)}" for address in addresses]
        logger.warning(
            "waiting for configuration from the control plane (%s); it is started by `weft up` or "
            "`weft control`",
            "; ".join(states),
        )
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _state(address: Address) -> str:
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError:
        return f"no answer within {_CONNECT_TIMEOUT:g} s"
    except OSError as error:
        return why(error)
    writer.close()
    return "accepts connections, but has sent nothing usable yet"
