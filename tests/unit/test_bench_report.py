"""How a benchmark's figures are judged."""

from __future__ import annotations

import io

import pytest
from benchmarks.report import Budget, Figure, Result, show
from rich.console import Console


def test_a_ratio_is_the_value_over_the_baseline() -> None:
    assert Figure("added", 0.6, "ms", 0.4).ratio == pytest.approx(1.5)


@pytest.mark.parametrize("baseline", [None, 0.0, -0.1])
def test_there_is_no_ratio_to_a_baseline_that_is_missing_or_lost_in_the_noise(baseline: float | None) -> None:
    assert Figure("added", 0.6, "ms", baseline).ratio is None


def test_a_budget_bounds_the_value_from_above() -> None:
    assert Figure("added", 0.5, "ms", 0.4, "bare", Budget(0.5)).met is True
    assert Figure("added", 0.6, "ms", 0.4, "bare", Budget(0.5)).met is False


def test_a_budget_of_the_ratio_bounds_it_from_below() -> None:
    least = Budget(0.85, at_most=False, of_ratio=True)
    assert Figure("rate", 90, "requests/s", 100, "bare", least).met is True
    assert Figure("rate", 80, "requests/s", 100, "bare", least).met is False


def test_a_budget_of_the_ratio_is_neither_met_nor_missed_without_a_ratio() -> None:
    assert Figure("rate", 90, "requests/s", None, "", Budget(0.85, of_ratio=True)).met is None


def test_what_is_printed_has_value_baseline_ratio_budget_verdict_and_notes() -> None:
    figure = Figure("added, p50", 0.6, "ms", 0.4, "bare pair", Budget(0.5))
    output = io.StringIO()
    show([Result("Latency", (figure,), ("five rounds",))], Console(file=output, width=120))
    for text in (
        "Latency",
        "added, p50",
        "0.6 ms",
        "0.4 bare pair",
        "1.50 x",
        "≤ 0.5",
        "missed",
        "five rounds",
    ):
        assert text in output.getvalue()
