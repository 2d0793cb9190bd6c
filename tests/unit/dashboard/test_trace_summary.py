"""What is told of a whole trace."""

from __future__ import annotations

from typing import Any

from weft.dashboard.pages.spans import Span
from weft.dashboard.pages.trace_summary import agent_of, trace_of

USED = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 2}


def span(id_: str, parent: str = "", name: str = "x", **more: Any) -> dict[str, Any]:
    """A span as the API has it."""
    return {"id": id_, "parent": parent, "name": name, "start": 5.0, "duration": 1.0, **more}


def test_a_trace_is_called_as_its_first_span_and_tells_what_is_in_it() -> None:
    found = trace_of(
        {
            "id": "t",
            "spans": [
                span("2", "1", name="inner", service="b", status="error", attributes={"weft.context": "c"}),
                span("1", name="outer", service="a", attributes={"gen_ai.conversation.id": "d"}),
            ],
            "cut": False,
        }
    )
    assert (found.name, found.services, found.errors, found.is_cut) == ("outer", ("a", "b"), 1, False)
    assert found.contexts == ("c", "d")
    assert found.end == 6.0


def test_tokens_of_one_call_are_counted_once_whoever_tells_of_them() -> None:
    spans = [
        span("1", name="invoke_agent a"),
        span("2", "1", name="chat m", attributes=USED),
        span("3", "2", name="chat m", attributes=USED),
        span("4", "1", name="chat m", attributes={**USED, "gen_ai.usage.output_tokens": "3"}, start=5.5),
        span("5", "1", name="chat m", attributes={"gen_ai.usage.input_tokens": "many"}),
    ]
    found = trace_of({"spans": spans})
    assert (found.input_tokens, found.output_tokens) == (20, 5)


def test_no_trace_is_one_without_spans() -> None:
    nothings: list[object] = [None, {}, {"spans": None}, "x"]
    for each in nothings:
        found = trace_of(each)
        assert (found.name, found.waterfall.rows, found.end) == ("No spans", (), 0.0)


def test_an_agent_is_known_by_who_sent_its_spans() -> None:
    def of(reporter: object) -> tuple[str, str] | None:
        return agent_of(Span("1", attributes={"weft.reporter": reporter}))

    assert of("spiffe://weft.local/agent/ann/ann-1") == ("ann", "ann-1")
    for other in (
        "spiffe://weft.local/operator/local/door",
        "operator/ci",
        "",
        None,
        7,
        "spiffe://x/agent/a",
    ):
        assert of(other) is None, other
