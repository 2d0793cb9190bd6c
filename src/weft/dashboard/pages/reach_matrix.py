"""Who can reach whom, as a matrix: callers down, what they call across, one decision in each cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

PAGE = 30
"""Rows, and columns, that are shown at once."""


class Verdict(Enum):
    """What a cell says; each with a sign and a word, so that colour is never all."""

    ALLOWED = ("✓", "allowed", "ok")
    DENIED = ("✕", "denied", "bad")
    PARTLY = ("◐", "depends on the request", "warn")
    UNKNOWN = ("·", "not known", "muted")

    def __init__(self, sign: str, word: str, tone: str) -> None:
        self.sign = sign
        self.word = word
        self.tone = tone


@dataclass(frozen=True, slots=True)
class Cell:
    """What the policies say to one caller and one that it may call."""

    caller: str
    callee: str
    verdict: Verdict
    policy: str = ""
    reason: str = ""
    dry_run: tuple[str, ...] = ()
    """Policies that would change it, were they not in dry-run mode."""

    @property
    def summary(self) -> str:
        """In one sentence, for those who do not see the sign."""
        said = f"{self.caller} to {self.callee}: {self.verdict.word}"
        return f"{said}, by {self.policy}" if self.policy else said


@dataclass(frozen=True, slots=True)
class Reach:
    """All that is known of who can reach whom."""

    callers: tuple[str, ...] = ()
    callees: tuple[str, ...] = ()
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True)
class MatrixFilters:
    """What of the matrix is looked at."""

    caller: str = ""
    """Text in the caller's name."""
    callee: str = ""
    only: Verdict | None = None
    """Only callers and callees between which there is this."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The part of the matrix that is shown."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    """By row and column."""
    all_rows: int
    all_columns: int
    first_row: int
    """From 0."""
    first_column: int


def reach_of(answers: Iterable[Any]) -> Reach:
    """What pages of the API's answer say together; what is no cell is left out."""
    callers: dict[str, None] = {}
    callees: dict[str, None] = {}
    cells: dict[tuple[str, str], Cell] = {}
    for answer in answers:
        if not isinstance(answer, dict):
            continue
        callers.update(dict.fromkeys(_names(answer.get("callers"))))
        callees.update(dict.fromkeys(_names(answer.get("callees"))))
        for item in answer.get("cells") or []:
            if isinstance(item, dict) and item.get("caller") and item.get("callee"):
                cell = _cell(item)
                cells[cell.caller, cell.callee] = cell
    return Reach(tuple(callers), tuple(callees), tuple(cells.values()))


def matrix(
    reach: Reach, filters: MatrixFilters, *, row: int = 0, column: int = 0, size: int = PAGE
) -> Matrix:
    """The part of `reach` that passes the filters, from a row and column on."""
    cells = {(each.caller, each.callee): each for each in reach.cells}
    rows = [each for each in reach.callers if filters.caller.lower() in each.lower()]
    columns = [each for each in reach.callees if filters.callee.lower() in each.lower()]
    if filters.only is not None:
        hits = {key for key, each in cells.items() if each.verdict is filters.only}
        hits = {(one, other) for one, other in hits if one in set(rows) and other in set(columns)}
        rows = [each for each in rows if each in {one for one, _ in hits}]
        columns = [each for each in columns if each in {other for _, other in hits}]
    first_row, first_column = _within(row, rows, size), _within(column, columns, size)
    shown, across = rows[first_row : first_row + size], columns[first_column : first_column + size]
    return Matrix(
        rows=tuple(shown),
        columns=tuple(across),
        cells=tuple(
            tuple(cells.get((one, other)) or Cell(one, other, Verdict.UNKNOWN) for other in across)
            for one in shown
        ),
        all_rows=len(rows),
        all_columns=len(columns),
        first_row=first_row,
        first_column=first_column,
    )


def totals(reach: Reach) -> dict[Verdict, int]:
    """How many cells say what."""
    found = dict.fromkeys(Verdict, 0)
    for each in reach.cells:
        found[each.verdict] += 1
    return found


def kind_of(callee: str) -> tuple[str, str]:
    """The kind of what is called, and its name: `topic/x` is a topic, what has no slash an agent."""
    kind, slash, name = callee.partition("/")
    return (kind, name) if slash else ("agent", callee)


def action_for(callee: str) -> str:
    """What one does first with it, as `weft can` calls it."""
    return {"topic": "publish", "queue": "submit"}.get(kind_of(callee)[0], "call")


def _within(first: int, names: Sequence[str], size: int) -> int:
    """The beginning of a page that there is."""
    last = max(0, (len(names) - 1) // size * size)
    return min(max(0, first // size * size), last)


def _names(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _cell(item: dict[str, Any]) -> Cell:
    dry_run = item.get("dryRun")
    if item.get("partly"):
        verdict = Verdict.PARTLY
    else:
        verdict = Verdict.ALLOWED if item.get("allowed") is True else Verdict.DENIED
    return Cell(
        caller=str(item["caller"]),
        callee=str(item["callee"]),
        verdict=verdict,
        policy=str(item.get("policy") or ""),
        reason=str(item.get("reason") or ""),
        dry_run=tuple(_names(dry_run)),
    )
