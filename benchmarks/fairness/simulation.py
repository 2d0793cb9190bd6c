"""Tenants that ask for more than a provider can serve, in simulated time: by Weft's scheduler, or in turn."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from weft.controlplane.llm.call import Admission, Call, Ended, Refusal, Usage
from weft.controlplane.llm.pool import PoolScheduler
from weft.model.model_pool import ModelPool, ModelPoolSpec
from weft.model.service_class import ServiceClass

SLOTS = 16
"""Calls that the provider serves at once."""

FIRST_TOKEN = 0.2
TOKEN = 0.01
"""Seconds until an answer begins, and for each of its tokens."""

PROMPT = (50, 800)
ANSWER = (20, 400)
"""Tokens, from and to."""

_EPOCH = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a tenant asks for. How long the answer will be nobody knows before."""

    at: float
    tenant: str
    prompt: int
    answer: int

    @property
    def cost(self) -> int:
        """Service, as VTC counts it."""
        return self.prompt + 2 * self.answer

    @property
    def seconds(self) -> float:
        """That it takes to serve."""
        return FIRST_TOKEN + self.answer * TOKEN


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was served."""

    at: float
    """When it was over."""
    request: Request


class Policy(Protocol):
    """Who is served next."""

    def asked(self, number: int, request: Request, now: float) -> None:
        """A request arrives."""
        ...

    def over(self, number: int, request: Request, started: float, now: float) -> None:
        """A request has been served."""
        ...

    def next(self, now: float) -> list[int]:
        """Numbers of the requests that start now."""
        ...


class FirstCome:
    """First come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._free = SLOTS

    def asked(self, number: int, request: Request, now: float) -> None:
        """A request arrives."""
        del request, now
        self._waiting.append(number)

    def over(self, number: int, request: Request, started: float, now: float) -> None:
        """A request has been served."""
        del number, request, started, now
        self._free += 1

    def next(self, now: float) -> list[int]:
        """Numbers of the requests that start now."""
        del now
        started = [self._waiting.popleft() for _ in range(min(self._free, len(self._waiting)))]
        self._free -= len(started)
        return started


class Weft:
    """By Weft's scheduler, which knows neither how long answers will be nor what the requests cost."""

    def __init__(self) -> None:
        provider = {"name": "a", "url": "http://provider.example/v1", "limits": {"concurrency": SLOTS}}
        scheduling = {"maxWaiting": 100_000, "maxWait": "1h", "assumedOutputTokens": 400}
        spec = ModelPoolSpec.model_validate({"providers": [provider], "scheduling": scheduling})
        self._scheduler = PoolScheduler(ModelPool("p", spec), _NoBudgets(), now=_EPOCH)

    def asked(self, number: int, request: Request, now: float) -> None:
        """A request arrives."""
        call = Call(
            id=str(number),
            pool="p",
            model="m",
            tenant=request.tenant,
            service_class=ServiceClass.STANDARD,
            prompt_tokens=request.prompt,
            max_output_tokens=None,
            arrived=_EPOCH + now,
        )
        self._scheduler.submit(call, _EPOCH + now)

    def over(self, number: int, request: Request, started: float, now: float) -> None:
        """A request has been served."""
        end = Ended(
            call_id=str(number),
            pool="p",
            provider="a",
            status=200,
            started=_EPOCH + started,
            ended=_EPOCH + now,
            first_token=FIRST_TOKEN,
            usage=Usage(request.prompt, request.answer),
            broken=False,
            cancelled=False,
            estimated_tokens=0,
            sidecar="",
            agent_type="",
            tenant=request.tenant,
            model="m",
            streaming=True,
            context=None,
            key=None,
            news=None,
        )
        self._scheduler.ended(end, _EPOCH + now)

    def next(self, now: float) -> list[int]:
        """Numbers of the requests that start now."""
        decisions = self._scheduler.decisions(_EPOCH + now)
        assert all(isinstance(each, Admission) for each in decisions)
        return [int(each.call_id) for each in decisions]


class _NoBudgets:
    """Everybody may spend what they like."""

    def reserve(self, call: Call, tokens: int, usd: float, now: float) -> Refusal | None:
        del call, tokens, usd, now
        return None

    def settle(self, call_id: str, tokens: int, usd: float, now: float) -> None:
        """Nothing was set aside."""

    def release(self, call_id: str, now: float) -> None:
        """Nothing was set aside."""


def requests(rates: Mapping[str, float], seconds: float, seed: int = 1) -> list[Request]:
    """What tenants ask for at their rates, in requests per second: Poisson, lengths evenly spread."""
    dice = random.Random(seed)
    asked = []
    for tenant, rate in rates.items():
        now = dice.expovariate(rate)
        while now < seconds:
            asked.append(Request(now, tenant, dice.randint(*PROMPT), dice.randint(*ANSWER)))
            now += dice.expovariate(rate)
    return sorted(asked, key=lambda each: each.at)


def serve(policy: Policy, asked: Sequence[Request], seconds: float) -> list[Served]:
    """What a provider has served in that time."""
    events: list[tuple[float, int, float | None]] = [
        (each.at, number, None) for number, each in enumerate(asked)
    ]
    heapq.heapify(events)
    served = []
    while events and events[0][0] < seconds:
        now, number, started = heapq.heappop(events)
        request = asked[number]
        if started is None:
            policy.asked(number, request, now)
        else:
            served.append(Served(now, request))
            policy.over(number, request, started, now)
        for each in policy.next(now):
            heapq.heappush(events, (now + asked[each].seconds, each, now))
    return served


def capacity() -> float:
    """Requests that the provider serves in a second, in the mean."""
    return SLOTS / (FIRST_TOKEN + sum(ANSWER) / 2 * TOKEN)
