"""What is wrong with something of a cluster, as its conditions and events say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    reason: str
    """In one word, CamelCase, as conditions and events have it: the same for all problems of its kind."""
    message: str
    """What is wrong with what, and what to do."""
    refused: bool = True
    """Whether nothing was done on its account; otherwise it is a warning."""


class Refusal(Exception):
    """Nothing can be done, because of one problem."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(reason, message)


def warning(reason: str, message: str) -> Problem:
    """A problem on whose account nothing was left undone."""
    return Problem(reason, message, refused=False)
