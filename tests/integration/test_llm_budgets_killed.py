"""Budgets while the process that keeps account of them is killed, in the midst of many calls at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.budget_spender import ANSWER, BUDGET, PROMPT
from tests.servers import nats_server

from weft.aio.children import spawn
from weft.aio.guard import Guard
from weft.controlplane.llm.ledger_records import LedgerRecord
from weft.controlplane.llm.state_records import StateBuckets
from weft.store.nats import NatsStore

SCRIPT = Path(__file__).with_name("budget_spender.py")
LIMIT = 60.0
KILLED_AFTER = 12
"""Calls that were admitted."""


@dataclass
class Seen:
    """What callers were told, and what they used."""

    used: dict[str, int] = field(default_factory=dict)
    """By call: all that it may use, until it is known what it has."""

    def line(self, text: str) -> None:
        match text.split():
            case ["admitted", call]:
                self.used[call] = PROMPT + ANSWER
            case ["used", call, tokens]:
                self.used[call] = int(tokens)

    @property
    def tokens(self) -> int:
        return sum(self.used.values())


async def spend(seen: Seen, url: str, term: str, log: Path, *, calls: int | None) -> None:
    """Have a process spend, until it was told `calls` times that it may; or until nothing is left."""
    async with Guard(grace=0.1) as guard:
        with log.open("ab") as errors:
            child = await spawn(
                [sys.executable, str(SCRIPT), url, term],
                guard=guard,
                environ=os.environ,
                stdout=PIPE,
                stderr=errors.fileno(),
            )
        assert child.stdout is not None
        begun = len(seen.used)
        async for line in child.stdout:
            if line.endswith(b"\n"):
                seen.line(line.decode())
            if calls is not None and len(seen.used) >= begun + calls:
                child.send(signal.SIGKILL)
        assert await child.wait() == (0 if calls is None else 128 + signal.SIGKILL), _said(log)


def _said(log: Path) -> str:
    return log.read_text()


async def account(url: str) -> LedgerRecord:
    """What is written of the one budget."""
    store = await NatsStore.connect([url], name="reader")
    try:
        (entry,) = await (await StateBuckets.open(store)).accounts.entries()
        return entry.value.value
    finally:
        await store.close()


async def test_no_budget_is_exceeded_and_nothing_used_is_forgotten_though_the_leader_is_killed(
    tmp_path: Path,
) -> None:
    (_, spec) = BUDGET
    assert spec.tokens is not None
    seen, log = Seen(), tmp_path / "spender.log"
    async with asyncio.timeout(LIMIT), nats_server(tmp_path) as server:
        for term in ("one", "two"):
            await spend(seen, server.url, term, log, calls=KILLED_AFTER)
        killed = await account(server.url)
        assert killed.spent.tokens + sum(each.amount.tokens for each in killed.open.values()) >= seen.tokens
        await spend(seen, server.url, "three", log, calls=None)
        left = await account(server.url)
    assert seen.tokens <= spec.tokens
    assert len(seen.used) > 2 * KILLED_AFTER
    set_aside = sum(each.amount.tokens for each in left.open.values())
    assert spec.tokens - (PROMPT + ANSWER) < left.spent.tokens + set_aside <= spec.tokens
