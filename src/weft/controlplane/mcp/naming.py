"""The names of tools and prompts of many servers: their own where nobody else has them, else qualified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_NAME: Final = 128
"""Characters."""

SEPARATOR: Final = "_"
"""Between a server's type and a name. No type has it in it, so no two qualified names are the same."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A name that a server's entry would have. A server wants no name twice."""

    server: str
    """Its type."""
    name: str
    declared: bool = False
    """Whether an operator gave it, not the server."""

    @property
    def qualified(self) -> str | None:
        """The name that is its own whatever others are called; None if that would be too long."""
        name = f"{self.server}{SEPARATOR}{self.name}"
        return name if len(name) <= MAX_NAME else None


@dataclass(frozen=True, slots=True)
class Named:
    """What the entry is called."""

    name: str
    aliases: tuple[str, ...] = ()


def name_all(wanted: Sequence[Wanted]) -> list[Named | None]:
    """The name of each; None for one whose name others have too, and whose qualified one is too long.

    A name that operators gave wins over the same of servers; the qualified name of another wins over all, so
    that nobody takes for itself what another is always called by.
    """
    declared = Counter(each.name for each in wanted if each.declared)
    all_of = Counter(each.name for each in wanted)
    qualified = _qualified(wanted)
    return [
        _named(each, (declared if each.declared else all_of)[each.name] == 1 and each.name not in qualified)
        for each in wanted
    ]


def _qualified(wanted: Iterable[Wanted]) -> set[str]:
    return {name for each in wanted if (name := each.qualified) is not None}


def _named(wanted: Wanted, keeps_its_name: bool) -> Named | None:
    qualified = wanted.qualified
    if keeps_its_name:
        return Named(wanted.name, (qualified,) if qualified is not None else ())
    return Named(qualified) if qualified is not None else None
