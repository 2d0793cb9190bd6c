"""What a kubelet asks of a sidecar, on the pod's address: whether it is ready, and how its agent is.

An agent that listens on loopback only can be asked by nobody but the sidecar. Only the paths that were named
at the start are asked for, and no more than the outcome is told: whoever reaches the address may ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from weft.errors import NotFound, Unavailable
from weft.model.node import Address
from weft.sidecar.departure import Departure
from weft.sidecar.health import MAX_CARD_ANSWER_BYTES, Check
from weft.sidecar.http import BadAnswer, exchange, why
from weft.sidecar.local_server import LocalAnswer

READY_PATH: Final = "/ready"
"""200 once calls can go out and come in, and no drain has begun; else 503."""
LIVE_PATH: Final = "/live"
"""200 as long as the sidecar answers at all."""
DRAINED_PATH: Final = "/drained"
"""Answers when the drain is over. It begins none: if none begins within DRAIN_AWAITED, 503."""
PROBES_PATH: Final = "/agent/probes/"
"""With a name behind it: 200 if the agent passes that probe, else 503."""

DRAIN_AWAITED: Final = 20.0
"""Seconds. A kubelet runs the hooks of a pod's containers at the same time, that which drains among them."""

PROBE_TIMEOUT: Final = 60.0
"""Seconds after which a probe has failed, if the kubelet has not lost its patience before."""

_TEXT: Final = {"Content-Type": "text/plain; charset=utf-8"}
_OK: Final = LocalAnswer(200, _TEXT, b"ok\n")


class KubeletAnswers:
    """The answers of one sidecar."""

    def __init__(
        self,
        agent: Address | None,
        probes: Mapping[str, str],
        *,
        unready: Callable[[], str],
        departure: Departure,
    ) -> None:
        """`probes` are paths of the agent by name; empty: that its port takes connections is enough.

        `unready` tells why the sidecar is not ready; empty if it is.
        """
        self._agent = agent
        self._probes = probes
        self._unready = unready
        self._departure = departure

    def find(self, path: str) -> Callable[[], Awaitable[LocalAnswer]] | None:
        """What answers at `path`; None if nothing of this does."""
        if path in (READY_PATH, LIVE_PATH, DRAINED_PATH):
            return {READY_PATH: self._ready, LIVE_PATH: self._live, DRAINED_PATH: self._drained}[path]
        if path.startswith(PROBES_PATH):
            return lambda: self._probe(path.removeprefix(PROBES_PATH))
        return None

    async def _ready(self) -> LocalAnswer:
        reason = self._unready()
        if reason:
            raise Unavailable(f"the sidecar is not ready: {reason}")
        return _OK

    async def _live(self) -> LocalAnswer:
        return _OK

    async def _drained(self) -> LocalAnswer:
        if not await self._departure.awaited(DRAIN_AWAITED):
            raise Unavailable("no drain has begun")
        return _OK

    async def _probe(self, name: str) -> LocalAnswer:
        path = self._probes.get(name)
        if path is None or self._agent is None:
            raise NotFound(f"there is no probe {name[:64]!r}: the sidecar was not told of one")
        check = await probe_agent(self._agent, path)
        if not check.passed:
            raise Unavailable(check.reason)
        return _OK


async def probe_agent(agent: Address, path: str) -> Check:
    """Probe the agent once, as a kubelet would: by a GET that may be answered with 3xx, or a connection."""
    what = f"GET http://{agent}{path}" if path else f"a connection to {agent}"
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            reader, writer = await asyncio.open_connection(agent.host, agent.port)
            if not path:
                writer.close()
                await writer.wait_closed()
                return Check(True)
            answer = await exchange(reader, writer, path, host=str(agent), max_body=MAX_CARD_ANSWER_BYTES)
    except TimeoutError:
        return Check(False, f"{what}: no full answer within {PROBE_TIMEOUT:g} s")
    except BadAnswer as error:
        return Check(False, f"{what}: {error}")
    except OSError as error:
        return Check(False, f"{what}: {why(error)}")
    passed = 200 <= answer.status < 400
    return Check(passed, "" if passed else f"{what}: answered {answer.status}")
