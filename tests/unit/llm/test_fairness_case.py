"""The case of fairness keeps its budgets: the plot in the documentation comes from it."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.fairness_case import measure


async def test_tenants_that_ask_for_too_much_get_equal_service_within_vtcs_bound() -> None:
    result = await measure(quick=True)
    judged = {each.name: each.met for each in result.figures if each.budget is not None}
    assert len(judged) == 4
    assert all(judged.values()), judged
    assert ElementTree.fromstring(result.files["fairness.svg"]).tag.endswith("svg")
