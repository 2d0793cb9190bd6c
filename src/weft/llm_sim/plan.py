"""What becomes of one request: by its wishes, by what is set, and by chance, which the seed decides. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from struct import unpack

from weft.llm_sim.behaviour import Behaviour, Outage
from weft.llm_sim.wishes import Wishes

_MOST_REMEMBERED = 65_536
_RANGE = 2**32


class Fate(StrEnum):
    """What a request that was let in gets."""

    ANSWER = "answer"
    FAILURE = "failure"
    HTML = "html"
    HANG = "hang"
    CLOSE = "close"


class Cut(StrEnum):
    """How an answer ends before its end."""

    BREAK = "break"
    """The connection is closed."""
    STALL = "stall"
    """Nothing more comes."""
    ERROR = "error"
    """An error event comes; answers that are not streamed break."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request is answered."""

    first_token: float
    """Seconds until the answer begins."""
    tokens_per_second: float
    """0: all at once."""
    answer_tokens: int
    usage: bool
    fate: Fate = Fate.ANSWER
    status: int = 500
    retry_after: float | None = None
    cut: Cut | None = None
    cut_after: int | None = None
    """Tokens after which it is cut; None: somewhere midway, by `draw`."""
    text: str | None = None
    tool: str | None = None
    draw: int = 0
    """A number that chance made."""


class Chance:
    """Draws numbers: the same for the same seed, request, and how often that has come before."""

    def __init__(self, seed: int) -> None:
        self._key = seed.to_bytes(8, "big", signed=True)
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def digest(self, body: bytes) -> bytes:
        """What a request is known by."""
        return blake2b(body, digest_size=16, key=self._key).digest()

    def draw(self, digest: bytes) -> tuple[int, ...]:
        """Six numbers below 2**32 for the next request of that digest."""
        times = self._seen.pop(digest, 0) + 1
        self._seen[digest] = times
        if len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)
        return unpack(
            "6I", blake2b(digest + times.to_bytes(8, "big"), digest_size=24, key=self._key).digest()
        )

    def forget(self) -> None:
        """Begin anew, as after a start."""
        self._seen.clear()


def plan(
    behaviour: Behaviour, forced_tool: str | None, wishes: Wishes, draws: tuple[int, ...] | None
) -> Plan:
    """The plan for a request that must call `forced_tool`, if that is given.

    `draws` are what `Chance` drew, None where nothing is left to it.
    """
    fate, status = _fate(behaviour, wishes, draws)
    cut, after = _cut(behaviour, wishes, draws)
    slow = draws is not None and _hit(draws[4], behaviour.slow_first_token_rate)
    first_token = behaviour.slow_first_token if slow else behaviour.first_token
    usage = behaviour.usage if wishes.usage is None else wishes.usage
    return Plan(
        first_token=first_token if wishes.first_token is None else wishes.first_token,
        tokens_per_second=behaviour.tokens_per_second
        if wishes.tokens_per_second is None
        else wishes.tokens_per_second,
        answer_tokens=wishes.answer_tokens or behaviour.answer_tokens,
        usage=usage,
        fate=fate,
        status=status,
        retry_after=wishes.retry_after,
        cut=cut,
        cut_after=after,
        text=wishes.text,
        tool=wishes.tool or forced_tool,
        draw=draws[5] if draws is not None else 0,
    )


_OUTAGES = {
    Outage.ERROR: Fate.FAILURE,
    Outage.HTML: Fate.HTML,
    Outage.HANG: Fate.HANG,
    Outage.CLOSE: Fate.CLOSE,
}


def _fate(behaviour: Behaviour, wishes: Wishes, draws: tuple[int, ...] | None) -> tuple[Fate, int]:
    if behaviour.outage in _OUTAGES:
        return _OUTAGES[behaviour.outage], behaviour.failure_status
    if wishes.fail is not None:
        return Fate.FAILURE, wishes.fail
    for wished, fate in ((wishes.html, Fate.HTML), (wishes.hang, Fate.HANG), (wishes.close, Fate.CLOSE)):
        if wished:
            return fate, 502
    if draws is not None:
        chances = (
            (behaviour.hang_rate, Fate.HANG),
            (behaviour.html_error_rate, Fate.HTML),
            (behaviour.failure_rate, Fate.FAILURE),
        )
        for draw, (rate, fate) in zip(draws, chances, strict=False):
            if _hit(draw, rate):
                return fate, behaviour.failure_status
    return Fate.ANSWER, 200


def _cut(
    behaviour: Behaviour, wishes: Wishes, draws: tuple[int, ...] | None
) -> tuple[Cut | None, int | None]:
    for after, cut in (
        (wishes.break_after, Cut.BREAK),
        (wishes.stall_after, Cut.STALL),
        (wishes.error_after, Cut.ERROR),
    ):
        if after is not None:
            return cut, after
    if draws is not None and _hit(draws[3], behaviour.break_rate):
        return Cut.BREAK, None
    return None, None


def _hit(draw: int, rate: float) -> bool:
    return draw < rate * _RANGE
