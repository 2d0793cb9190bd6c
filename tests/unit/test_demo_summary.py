"""The summary that a model writes: who is asked, what it is told, and what becomes of what it says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.unit.test_demo_report import outcome, terminal_text

from weft import InvalidRequest, Mesh
from weft.demo.findings import Finding, Review, Severity
from weft.demo.markdown import render_markdown
from weft.demo.report import SummaryRecord, merge
from weft.demo.summary import DEFAULT_MODEL, MAX_FINDINGS, Writer, digest, readable, writer_from
from weft.testing import SimulatedLLM

POOL = """
apiVersion: weft.dev/v1alpha1
kind: ModelPool
metadata: {name: own}
spec:
  %sproviders: [{name: own, preset: vllm, url: http://127.0.0.1:1/v1}]
"""


def test_without_a_key_and_a_pool_nobody_writes() -> None:
    assert writer_from({}) is None
    assert writer_from({"OPENAI_API_KEY": " "}) is None


@pytest.mark.parametrize("key", ["HOLYSHEEP_API_KEY", "OPENAI_API_KEY"])
def test_with_a_key_a_model_writes_which_can_be_named(key: str) -> None:
    assert writer_from({key: "secret"}) == Writer(DEFAULT_MODEL)
    assert writer_from({key: "secret"}, model="other") == Writer("other")


@pytest.mark.parametrize(
    ("models", "expected"),
    [("", "own"), ("models: [big, small]\n  ", "big"), ("models: ['*']\n  ", DEFAULT_MODEL)],
)
def test_a_pool_of_one_s_own_comes_before_a_key(models: str, expected: str) -> None:
    writer = writer_from({"OPENAI_API_KEY": "secret"}, manifest=POOL % models, file="models.yaml")
    assert writer is not None
    assert (writer.model, writer.manifest) == (expected, POOL % models)


def test_models_that_nobody_serves_are_said_at_once() -> None:
    with pytest.raises(InvalidRequest, match="nobody serves model 'big'"):
        writer_from({}, model="big")
    queue = "apiVersion: weft.dev/v1alpha1\nkind: Queue\nmetadata: {name: q}\nspec: {}\n"
    with pytest.raises(InvalidRequest, match=r"no-models\.yaml declares no ModelPool"):
        writer_from({}, manifest=queue, file="no-models.yaml")


def test_a_model_is_told_the_worst_findings_and_how_many_more_there_are() -> None:
    many = [Finding(line=n, severity=Severity.LOW, rule="E1", message="x") for n in range(1, 60)]
    reviewed = outcome()
    answers = [*reviewed.answers[:-1], replace(reviewed.answers[-1], review=Review(findings=tuple(many)))]

    told = digest(merge(replace(reviewed, answers=answers)))

    assert "- medium, src/a.py:2, lint B006: a shared default" in told
    assert told.count("\n- low, ") == MAX_FINDINGS - 1
    assert told.endswith("... and 22 more")


def test_what_a_model_writes_cannot_harm_a_terminal_or_the_markdown() -> None:
    text = readable("First:\x1b[31m fix\x07 it\n\n# Then @everybody <b>rest</b>\n" + "x" * 9000 + "\n" * 200)
    assert text.splitlines()[0] == "First: [31m fix it"
    assert len(text) < 1000
    report = merge(replace(outcome(), summary=SummaryRecord(model="m", text=text)))
    markdown = render_markdown(report)
    assert "\n> First: \\[31m fix it\n" in markdown
    assert "> \\# Then &#64;everybody \\<b\\>rest" in markdown
    assert "Written by the model `m`" in markdown
    assert "Summary, written by m" in terminal_text(report)


def test_without_a_summary_nothing_is_said_of_one() -> None:
    report = merge(outcome())
    assert report.summary is None
    assert "### Summary" not in render_markdown(report)
    assert "Summary, written" not in terminal_text(report)


def test_a_model_writes_and_one_that_fails_costs_nothing_but_the_summary() -> None:
    async def both(llm: SimulatedLLM) -> None:
        async with Mesh(proxy=llm.url.removesuffix("/v1")) as mesh:
            written = await Writer("sim").write(mesh, merge(outcome()))
            assert written.summary is not None
            assert written.summary.model == "sim"
            assert written.summary.text
            llm.behave(outage="error")
            failed = await Writer("sim").write(mesh, merge(outcome()))
            assert failed.summary is None
            assert failed.problem

    with SimulatedLLM(first_token="0ms", tokens_per_second=0) as llm:
        asyncio.run(both(llm))
