"""Counting votes: who leads, whether that is enough, and whether it can still change. Without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import to_json

from weft.errors import InvalidRequest

Rule = Literal["majority", "plurality", "unanimous"]
"""What a choice needs: more than half of the weight of all voters, more than any other, or every vote."""

RULES: tuple[Rule, ...] = ("majority", "plurality", "unanimous")

_AROUND = " \t\r\n\"'`.*"
"""What models put around a word."""

_SLACK = 1e-9
"""Weights are floats: what differs by less is a tie."""


@dataclass(slots=True)
class Count:
    """What one choice has got."""

    choice: Any
    weight: float = 0.0
    voters: list[str] = field(default_factory=list)


class Tally:
    """Votes as they come."""

    def __init__(self, total: float, rule: Rule, choices: Sequence[Any] | None) -> None:
        """`total` is the weight of all voters; `choices` what can be voted for (None: anything).

        Raises InvalidRequest for a rule that is none, or no choices.
        """
        if rule not in RULES:
            raise InvalidRequest(f"votes are counted by {', '.join(RULES)}, not {rule!r}")
        if choices is not None and not choices:
            raise InvalidRequest("there is nothing to vote for")
        self._rule = rule
        self._total = total
        self._open = total
        self._choices = None if choices is None else {_key(each): each for each in choices}
        self._counts: dict[str, Count] = {}
        self._silent = 0.0
        """Weight of those who failed to vote, or voted for what is not to choose."""

    @property
    def counts(self) -> tuple[Count, ...]:
        """Every choice with votes, that with the most first; of equals that which was voted for first."""
        return tuple(sorted(self._counts.values(), key=lambda each: -each.weight))

    def vote(self, voter: str, weight: float, ballot: Any) -> bool:
        """Count a vote; whether it is for one of the choices."""
        self._open -= weight
        key = _key(ballot)
        if self._choices is not None and key not in self._choices:
            self._silent += weight
            return False
        choice = ballot.strip(_AROUND) if isinstance(ballot, str) else ballot
        count = self._counts.setdefault(key, Count(choice if self._choices is None else self._choices[key]))
        count.weight += weight
        count.voters.append(voter)
        return True

    def abstain(self, weight: float) -> None:
        """A voter failed to vote."""
        self._open -= weight
        self._silent += weight

    @property
    def decided(self) -> bool:
        """Whether what is still to come changes nothing."""
        open_votes = max(self._open, 0.0)
        if open_votes <= _SLACK:
            return True
        first, second = self._leading()
        match self._rule:
            case "majority":
                half = self._total / 2
                return first > half + _SLACK or first + open_votes <= half + _SLACK
            case "plurality":
                return first > second + open_votes + _SLACK
            case "unanimous":
                return len(self._counts) > 1 or self._silent > _SLACK

    def winner(self) -> Count | None:
        """Who has won; None while nobody has."""
        counts = self.counts
        if not counts:
            return None
        first, second = self._leading()
        open_votes = max(self._open, 0.0)
        won = {
            "majority": first > self._total / 2 + _SLACK,
            "plurality": first > second + open_votes + _SLACK,
            "unanimous": len(counts) == 1 and open_votes + self._silent <= _SLACK,
        }
        return counts[0] if won[self._rule] else None

    def tied(self) -> list[Any]:
        """The choices between which it is, where nobody has won: those with the most; all, if it had to be
        unanimous."""
        counts = self.counts
        if self._rule == "unanimous":
            return [each.choice for each in counts]
        return [each.choice for each in counts if counts[0].weight - each.weight <= _SLACK]

    def _leading(self) -> tuple[float, float]:
        weights = [each.weight for each in self.counts]
        first, second, *_ = [*weights, 0.0, 0.0]
        return first, second


def _key(choice: Any) -> str:
    """The same for what is the same choice; texts may differ in case, and in what models put around them."""
    return (
        choice.strip(_AROUND).casefold()
        if isinstance(choice, str)
        else to_json(choice, fallback=repr).decode()
    )
