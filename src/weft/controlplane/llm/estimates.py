"""What experience says: how long answers are, how fast they come, how much is going on."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from weft.controlplane.llm.call import LeasedEnds

_MAX_KINDS: Final = 4096
"""Tenants and models of which it is remembered how long their answers are."""

_STEPS: Final = 2
"""Steps of the histogram in which lengths double."""

_BUCKETS: Final = 48
"""Up to 2**24 tokens."""

_MEMORY: Final = 256
"""Answers after which older ones count half."""

_ENOUGH: Final = 10
"""Answers before which experience says nothing."""

_HIGH: Final = 0.95
"""Part of the answers that are no longer than what is reserved."""

_SHARE: Final = 0.1
"""Of the latest call in averages over calls."""

_RATE_TIME: Final = 10.0
"""Seconds after which what happened counts 1/e in rates."""

_RATE_STEP: Final = 0.05
"""Seconds that count as one moment in rates."""


@lru_cache(maxsize=4096)
def _bucket_of(tokens: int) -> int:
    return min(round(math.log2(tokens + 1) * _STEPS), _BUCKETS - 1)


class Lengths:
    """How long the answers of one kind are, in tokens."""

    __slots__ = ("_counts", "_high", "_number", "_sum")

    def __init__(self) -> None:
        self._counts = [0.0] * _BUCKETS
        self._number = 0.0
        self._sum = 0.0
        self._high: int | None = None

    def learn(self, tokens: int) -> None:
        """An answer had so many."""
        self._counts[_bucket_of(tokens)] += 1
        self._number += 1
        self._sum += tokens
        self._high = None
        if self._number >= _MEMORY:
            self._counts = [each / 2 for each in self._counts]
            self._number /= 2
            self._sum /= 2

    def mean(self) -> float | None:
        """None: too few are known."""
        return self._sum / self._number if self._number >= _ENOUGH else None

    def high(self) -> int | None:
        """What 19 of 20 do not exceed. None: too few are known."""
        if self._high is None and self._number >= _ENOUGH:
            self._high = self._quantile()
        return self._high

    def _quantile(self) -> int:
        shorter = itertools.accumulate(self._counts)
        number = next(
            (each for each, sum_ in enumerate(shorter) if sum_ >= self._number * _HIGH), _BUCKETS - 1
        )
        # The upper bound of the bucket: lengths are rounded to the nearest.
        return math.ceil(2 ** ((number + 0.5) / _STEPS))


class AnswerLengths:
    """How long answers are, by tenant and model."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[tuple[str, str], Lengths] = OrderedDict()
        self._all = Lengths()

    def learn(self, tenant: str, model: str, tokens: int) -> None:
        """An answer had so many tokens."""
        self.learn_all(tenant, model, (tokens,))

    def learn_all(self, tenant: str, model: str, lengths: Iterable[int]) -> None:
        """Answers had so many tokens each."""
        of = self._of(tenant, model)
        for each in lengths:
            of.learn(each)
            self._all.learn(each)

    def _of(self, tenant: str, model: str) -> Lengths:
        key = (tenant, model)
        lengths = self._kinds.get(key)
        if lengths is None:
            lengths = self._kinds[key] = Lengths()
            if len(self._kinds) > _MAX_KINDS:
                self._kinds.popitem(last=False)
        else:
            self._kinds.move_to_end(key)
        return lengths

    def expect(self, tenant: str, model: str, bound: int | None, assumed: int) -> tuple[int, float]:
        """Tokens to reserve for an answer, and those it is likely to have; it may have `bound` at most.

        Where too few answers of the kind are known, all others tell what is likely: who were new to the pool
        would else be charged far more than those whom they compete with. They do not tell what to reserve.
        """
        lengths = self._kinds.get((tenant, model))
        mean = lengths.mean() if lengths else None
        if mean is None:
            mean = self._all.mean()
        if bound is not None:
            return bound, min(bound, assumed if mean is None else mean)
        high = lengths.high() if lengths else None
        return assumed if high is None else high, assumed if mean is None else mean


class Pace:
    """How fast one provider answers; of answers that are not streamed only the end is seen."""

    __slots__ = ("_duration", "_first_token", "_per_token", "_tokens", "_whole_per_token")

    def __init__(self) -> None:
        self._first_token: float | None = None
        self._per_token: float | None = None
        self._whole_per_token: float | None = None
        self._duration: float | None = None
        self._tokens: float | None = None

    @property
    def first_token(self) -> float | None:
        """Seconds until a streamed answer begins."""
        return self._first_token

    @property
    def per_token(self) -> float | None:
        """Seconds for each further token of a streamed answer."""
        return self._per_token

    @property
    def duration(self) -> float | None:
        """Seconds that a call is under way, in the mean."""
        return self._duration

    @property
    def tokens(self) -> float | None:
        """Tokens of a call, prompt and answer together, in the mean."""
        return self._tokens

    def learn(
        self, duration: float, first_token: float | None, output_tokens: int, tokens: int, streaming: bool
    ) -> None:
        """A call was answered in `duration` seconds, with so many tokens."""
        self._learn(duration, first_token, output_tokens, tokens, streaming, _SHARE)

    def learn_all(self, ends: LeasedEnds) -> None:
        """Calls were answered: as if each had been like their mean."""
        calls = ends.calls
        first_token = ends.seconds_to_begin / ends.begun if ends.begun else None
        share = 1 - (1 - _SHARE) ** calls
        self._learn(
            ends.seconds / calls,
            first_token,
            ends.completion_tokens / calls,
            ends.tokens / calls,
            ends.streaming,
            share,
        )

    def _learn(
        self,
        duration: float,
        first_token: float | None,
        output_tokens: float,
        tokens: float,
        streaming: bool,
        share: float,
    ) -> None:
        self._duration = _averaged(self._duration, duration, share)
        self._tokens = _averaged(self._tokens, tokens, share)
        if not streaming:
            self._whole_per_token = _averaged(self._whole_per_token, duration / max(1, output_tokens), share)
        elif first_token is not None:
            self._first_token = _averaged(self._first_token, first_token, share)
            if output_tokens > 1:
                rest = max(0.0, duration - first_token)
                self._per_token = _averaged(self._per_token, rest / (output_tokens - 1), share)

    def estimate(self, output_tokens: float, streaming: bool) -> float:
        """Seconds that an answer of that length takes; 0 if nothing is known."""
        if not streaming and self._whole_per_token is not None:
            return output_tokens * self._whole_per_token
        return (self._first_token or 0.0) + max(0.0, output_tokens - 1) * (self._per_token or 0.0)


class Rate:
    """How much happens in a second."""

    __slots__ = ("_at", "_since", "_sum")

    def __init__(self, now: float) -> None:
        self._since = self._at = now
        self._sum = 0.0

    def count(self, now: float, amount: float) -> None:
        """So much happened."""
        if now > self._at + _RATE_STEP:
            self._sum *= math.exp((self._at - now) / _RATE_TIME)
            self._at = now
        self._sum += amount

    def per_second(self, now: float) -> float:
        """Over the last ten seconds or so."""
        if now <= self._since:
            return 0.0
        known = 1 - math.exp((self._since - now) / _RATE_TIME)
        left = math.exp(min(0.0, self._at - now) / _RATE_TIME)
        return self._sum * left / (_RATE_TIME * known)


def _averaged(former: float | None, latest: float, share: float) -> float:
    return latest if former is None else former + share * (latest - former)
