"""Whether the agent is fit for calls: a state machine over checks, and the loop that makes the checks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from weft.aio.reminder import Reminder
from weft.model.agent import Status
from weft.model.agent_card import CARD_PATH
from weft.model.node import Address, AgentProtocol
from weft.sidecar.http import BadAnswer, exchange, why
from weft.sidecar.settings import HealthSettings

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
"""A health check whose answer is longer has failed."""

MAX_CARD_ANSWER_BYTES = 16 * MAX_BODY_BYTES
"""Likewise where it is the agent's card: a card too large to be taken is no reason to send it no calls."""

_JITTER = 0.1
_FIRST_STARTING_PAUSE = 0.05
_LONGEST_STARTING_PAUSE = 1.0
_STARTING_GROWTH = 1.3


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check; `reason` says why it failed."""

    passed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """What the checks so far amount to. Starts as `starting` and leaves that only by becoming healthy."""

    status: Status = Status.STARTING
    reason: str = "no health check has passed yet"
    in_a_row: int = 0
    """How many of the latest checks agreed, passed or failed, against `status`."""

    def after(self, check: Check, settings: HealthSettings) -> Health:
        """The health after one more check."""
        if self.status is Status.HEALTHY:
            return self._while_healthy(check, settings)
        return self._while_not_healthy(check, settings)

    def _while_healthy(self, check: Check, settings: HealthSettings) -> Health:
        if check.passed:
            return Health(Status.HEALTHY, "")
        failed = self.in_a_row + 1
        if failed >= settings.unhealthy_threshold:
            return Health(Status.UNHEALTHY, check.reason)
        return Health(Status.HEALTHY, "", failed)

    def _while_not_healthy(self, check: Check, settings: HealthSettings) -> Health:
        if not check.passed:
            return Health(self.status, check.reason)
        passed = self.in_a_row + 1
        if passed >= settings.healthy_threshold:
            return Health(Status.HEALTHY, "")
        return Health(self.status, self.reason, passed)


async def check_agent(agent: Address, protocol: AgentProtocol, settings: HealthSettings) -> Check:
    """Check the agent once: by a GET that must be answered with 2xx, or by a connection.

    A connection it is where no path is set, and for an agent that speaks HTTP/2 only.
    """
    path = health_path(protocol) if settings.path is None else settings.path
    by_connection = not path or protocol is AgentProtocol.H2C
    what = f"a connection to {agent}" if by_connection else f"GET http://{agent}{path}"
    try:
        async with asyncio.timeout(settings.timeout):
            return await (_connect(agent) if by_connection else _get(agent, path, what))
    except TimeoutError:
        return Check(False, f"{what}: no full answer within {settings.timeout:g} s")
    except BadAnswer as error:
        return Check(False, f"{what}: {error}")
    except OSError as error:
        return Check(False, f"{what}: {why(error)}")


def health_path(protocol: AgentProtocol) -> str:
    """Where the health of an agent is asked for that says nothing of it; empty: a connection is enough."""
    match protocol:
        case AgentProtocol.A2A:
            return CARD_PATH
        case AgentProtocol.MCP | AgentProtocol.MCP_STDIO | AgentProtocol.H2C:
            return ""
        case AgentProtocol.HTTP1:
            return "/health"


async def _connect(agent: Address) -> Check:
    _, writer = await asyncio.open_connection(agent.host, agent.port)
    writer.close()
    await writer.wait_closed()
    return Check(True)


async def _get(agent: Address, path: str, what: str) -> Check:
    reader, writer = await asyncio.open_connection(agent.host, agent.port)
    limit = MAX_CARD_ANSWER_BYTES if path == CARD_PATH else MAX_BODY_BYTES
    answer = await exchange(reader, writer, path, host=str(agent), max_body=limit)
    return Check(True) if answer.ok else Check(False, f"{what}: answered {answer.status}")


class HealthMonitor:
    """Checks an agent again and again, and tells when its status, or the reason for it, changes."""

    def __init__(
        self,
        check: Callable[[], Awaitable[Check]],
        settings: HealthSettings,
        *,
        changed: Callable[[Health], None],
    ) -> None:
        """`check` is made as often as `settings` say; `changed` gets the health whenever it differs."""
        self._check = check
        self._settings = settings
        self._changed = changed
        self.health = Health()

    async def run(self) -> None:
        """Go on until cancelled."""
        now = asyncio.get_running_loop().time
        reminder = Reminder(now())
        starting_pause = _FIRST_STARTING_PAUSE
        while True:
            self._take(await self._check())
            if self.health.status is Status.STARTING:
                if reminder.due(now()):
                    logger.warning("the agent is not healthy yet: %s", self.health.reason)
                pause = starting_pause
                starting_pause = min(starting_pause * _STARTING_GROWTH, _LONGEST_STARTING_PAUSE)
            else:
                pause = self._settings.interval
            # Jitter keeps agents that were started together from being checked together for ever.
            await asyncio.sleep(pause * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311

    def _take(self, check: Check) -> None:
        before, self.health = self.health, self.health.after(check, self._settings)
        if (self.health.status, self.health.reason) != (before.status, before.reason):
            self._changed(self.health)
