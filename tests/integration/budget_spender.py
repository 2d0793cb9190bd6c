"""A leader that admits calls under a budget, and those who make them, in a process that is to be killed.

`python budget_spender.py NATS_URL TERM`: it prints `admitted CALL` when a call was told that it may start,
`used CALL TOKENS` when it ended, and ends when nothing is left. How many calls are under way at once, what
each may use and what it uses is below.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry

from weft.controlplane.llm.call import Admission, Call, Ended, Reason, Refusal, Usage
from weft.controlplane.llm.declared import Declared
from weft.controlplane.llm.metrics import LlmMetrics
from weft.controlplane.llm.state_records import StateBuckets
from weft.controlplane.llm.term import Term
from weft.model.budget import BudgetSpec, Period
from weft.model.model_pool import ModelPool, ModelPoolSpec, Provider
from weft.model.service_class import ServiceClass
from weft.store.nats import NatsStore

POOL: Final = ModelPool("gpt", ModelPoolSpec(providers=(Provider(name="one", url="http://127.0.0.1:1/v1"),)))
BUDGET: Final = ("ever", BudgetSpec(period=Period.TOTAL, tokens=5000))
PROMPT: Final = 50
ANSWER: Final = 50
"""At most."""

SPENDERS: Final = 8


def call(call_id: str) -> Call:
    """One that may use PROMPT and ANSWER."""
    return Call(
        call_id, POOL.name, "gpt", "spender", ServiceClass.STANDARD, PROMPT, ANSWER, time.time(), sidecar="s"
    )


def ended(call_id: str, usage: Usage) -> Ended:
    """That call, when it has used so much."""
    now = time.time()
    return Ended(
        call_id=call_id,
        pool=POOL.name,
        provider="one",
        status=200,
        started=now,
        ended=now,
        first_token=None,
        usage=usage,
        broken=False,
        cancelled=False,
        estimated_tokens=PROMPT + ANSWER,
        sidecar="s",
        agent_type="spender",
        tenant="spender",
        model="gpt",
        streaming=False,
        context=None,
        key=None,
        news=None,
    )


async def spend(term: Term, names: Iterator[str], under_way: set[str]) -> None:
    """Call, one call after another, until the budget is spent."""
    for call_id in names:
        decision = await term.ask(call(call_id))
        if isinstance(decision, Refusal):
            assert decision.reason is Reason.BUDGET, decision
            if not under_way:
                return
            await asyncio.sleep(0.01)  # some of what is set aside for others comes back
            continue
        assert isinstance(decision, Admission)
        under_way.add(call_id)
        print(f"admitted {call_id}", flush=True)
        await asyncio.sleep(random.uniform(0.0, 0.02))
        used = Usage(PROMPT, random.randint(0, ANSWER))
        print(f"used {call_id} {used.tokens}", flush=True)
        term.ended(ended(call_id, used))
        under_way.discard(call_id)


async def lead(url: str, name: str) -> None:
    """Go on from what was written, until nothing is left."""
    store = await NatsStore.connect([url], name=name)
    term = await Term.begin(
        await StateBuckets.open(store),
        name,
        Declared({POOL.name: POOL}, (BUDGET,)),
        LlmMetrics(CollectorRegistry()),
        leads=lambda: True,
        lease=lambda _granted: None,
    )
    running = asyncio.create_task(term.run())
    names, under_way = (f"{name}-{number}" for number in itertools.count()), set[str]()
    await asyncio.gather(*(spend(term, names, under_way) for _ in range(SPENDERS)))
    running.cancel()
    await asyncio.wait([running])
    term.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(lead(*sys.argv[1:]))
