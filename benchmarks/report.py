"""What a benchmark found, and how it is told: a table for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Budget:
    """What a figure is allowed to be."""

    limit: float
    """In the figure's unit; where it is `of_ratio`, of the ratio to the baseline."""
    at_most: bool = True
    of_ratio: bool = False

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return f"{sign} {self.limit:,g}{' x' if self.of_ratio else ''}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, beside its baseline from the same run."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    against: str = ""
    """What the baseline is."""
    budget: Budget | None = None

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of its baseline; None where there is no positive baseline."""
        return self.value / self.baseline if self.baseline and self.baseline > 0 else None

    @property
    def met(self) -> bool | None:
        """Whether it keeps its budget; None where there is none, or nothing to compare with."""
        if self.budget is None:
            return None
        judged = self.ratio if self.budget.of_ratio else self.value
        if judged is None:
            return None
        return judged <= self.budget.limit if self.budget.at_most else judged >= self.budget.limit

    def json(self) -> dict[str, Any]:
        """All of it, JSON types only."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "baseline": self.baseline,
            "against": self.against,
            "ratio": self.ratio,
            "budget": str(self.budget) if self.budget else None,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found."""

    title: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = field(default=())
    """What a reader must know to judge the figures."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts to be kept beside the figures, by file name: plots, say."""

    def json(self) -> dict[str, Any]:
        """All of it, JSON types only."""
        return {
            "title": self.title,
            "figures": [each.json() for each in self.figures],
            "notes": list(self.notes),
        }


def show(results: Iterable[Result], console: Console) -> None:
    """Print a table for every result, and its notes below it."""
    for result in results:
        console.print(_table(result))
        for note in result.notes:
            console.print(f"  {note}", style="dim", highlight=False)
        console.print()


def _table(result: Result) -> Table:
    table = Table(title=result.title, title_justify="left", title_style="bold", expand=False)
    table.add_column("figure")
    for name in ("value", "baseline", "ratio", "budget"):
        table.add_column(name, justify="right")
    table.add_column("")
    for each in result.figures:
        table.add_row(*_cells(each))
    return table


def _cells(figure: Figure) -> tuple[str, ...]:
    baseline = "" if figure.baseline is None else f"{_number(figure.baseline)} {figure.against}".rstrip()
    verdict = {True: "[green]met[/green]", False: "[red]missed[/red]", None: ""}[figure.met]
    return (
        figure.name,
        f"{_number(figure.value)} {figure.unit}",
        baseline,
        "" if figure.ratio is None else f"{figure.ratio:.2f} x",
        str(figure.budget or ""),
        verdict,
    )


def _number(value: float) -> str:
    """Three digits that count, and no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.3f}"
