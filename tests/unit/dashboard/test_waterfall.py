"""How traces are laid out, whatever was recorded."""

from __future__ import annotations

import math

import pytest

from weft.dashboard.pages.spans import MAX_SPANS, Said, Sort, Span, messages_of, sort_of, spans_of
from weft.dashboard.pages.waterfall import Waterfall, laid_out, ticks


def tree(waterfall: Waterfall) -> list[tuple[str, int]]:
    """Which spans, and how deep, in order."""
    return [(row.span.id, row.depth) for row in waterfall.rows]


def is_within_the_axis(waterfall: Waterfall) -> bool:
    """Whether every bar is where it can be seen."""
    return all(
        0 <= row.left <= 1 and row.width >= 0 and row.left + row.width <= 1 + 1e-9 for row in waterfall.rows
    )


def test_children_are_below_their_parents_in_the_order_of_time() -> None:
    found = laid_out(
        [
            Span("c", "a", start=13, duration=1),
            Span("d", "b", start=12, duration=1),
            Span("b", "a", start=11, duration=2),
            Span("a", start=10, duration=5),
        ]
    )
    assert tree(found) == [("a", 0), ("b", 1), ("d", 2), ("c", 1)]
    assert (found.begin, found.length) == (10, 5)
    assert [(row.left, row.width) for row in found.rows] == [(0, 1), (0.2, 0.4), (0.4, 0.2), (0.6, 0.2)]
    assert [row.below for row in found.rows] == [3, 1, 0, 0]


def test_what_is_below_a_collapsed_span_is_not_visible() -> None:
    found = laid_out([Span("a"), Span("b", "a"), Span("c", "b"), Span("d", "a", start=1, status="error")])
    assert [row.key for row in found.visible({"b"})] == ["a", "b", "d"]
    assert [row.key for row in found.visible({"a"})] == ["a"]
    assert found.rows[0].errors_below == 1
    assert found.way_to("c") == ["a", "b"]
    assert found.way_to("nobody") == []


def test_a_span_whose_parent_is_missing_begins_a_tree_and_says_so() -> None:
    found = laid_out([Span("a"), Span("b", "lost", start=1), Span("c", "b", start=2)])
    assert tree(found) == [("a", 0), ("b", 0), ("c", 1)]
    assert [row.is_orphan for row in found.rows] == [False, True, False]


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_spans_that_are_each_others_parents_are_all_shown_once(length: int) -> None:
    circle = [Span(str(number), str((number + 1) % length), start=number) for number in range(length)]
    found = laid_out([*circle, Span("outside", start=-1), Span("below", "0", start=99)])
    assert sorted(row.key for row in found.rows) == sorted([*map(str, range(length)), "outside", "below"])
    assert [row.span.id for row in found.rows if row.is_circle] == ["0"]
    assert is_within_the_axis(found)


def test_spans_of_the_same_id_are_all_shown_and_can_be_told_apart() -> None:
    found = laid_out([Span("a"), Span("a", start=1), Span("b", "a", start=2)])
    assert len({row.key for row in found.rows}) == 3
    assert tree(found) == [("a", 0), ("b", 1), ("a", 0)]


def test_a_span_of_another_clock_is_moved_to_where_it_can_have_been() -> None:
    found = laid_out(
        [
            Span("call", instance="x-1", start=100.0, duration=1.0),
            Span("serve", "call", instance="y-1", start=90.0, duration=0.5),
            Span("within", "serve", instance="y-1", start=90.1, duration=0.1),
            Span("back", "within", instance="x-1", start=100.4, duration=0.05),
        ]
    )
    by_id = {row.span.id: row for row in found.rows}
    assert found.length == 1.0
    assert by_id["serve"].start == pytest.approx(0.25)
    assert by_id["serve"].was_moved
    assert by_id["within"].start == pytest.approx(0.35)
    assert by_id["back"].shift == 0
    assert not by_id["call"].was_moved


def test_a_program_may_begin_later_and_last_longer_than_who_caused_it() -> None:
    found = laid_out(
        [
            Span("submit", instance="x-1", start=0, duration=0.1),
            Span("process", "submit", instance="y-1", start=50, duration=50),
        ]
    )
    assert [row.shift for row in found.rows] == [0, 0]
    assert found.length == 100


def test_no_spans_are_no_rows_and_one_without_length_has_a_place() -> None:
    assert laid_out([]).rows == ()
    assert laid_out([]).visible(()) == []
    only = laid_out([Span("a", start=5)])
    assert (only.rows[0].left, only.rows[0].width, only.length) == (0, 1, 0)


def test_five_thousand_spans_one_below_the_other_are_laid_out() -> None:
    chain = [Span(str(number), str(number - 1) if number else "", start=number) for number in range(5000)]
    found = laid_out(chain)
    assert found.rows[-1].depth == 4999
    assert found.rows[0].below == 4999
    assert len(found.visible({"0"})) == 1
    assert len(found.way_to("4999")) == 4999


def test_a_large_trace_begins_collapsed_but_its_errors_are_in_sight() -> None:
    wide = [
        Span(f"{a}.{b}", str(a), start=b, status="error" if (a, b) == (3, 7) else "ok")
        for a in range(40)
        for b in range(20)
    ]
    found = laid_out([Span("root"), *(Span(str(a), "root", start=a) for a in range(40)), *wide])
    collapsed = found.collapsed_at_first()
    seen = [row.key for row in found.visible(collapsed)]
    assert len(seen) <= 100
    assert "3.7" in seen
    assert "4.7" not in seen
    assert laid_out([Span("root")]).collapsed_at_first() == set()


def test_whatever_the_api_says_becomes_spans_or_nothing() -> None:
    odd = {
        "spans": [
            {"id": "a", "start": "soon", "duration": -5, "attributes": [1], "events": "none", "parent": 3},
            {"id": "b", "start": math.nan, "duration": math.inf, "status": None, "name": {"x": 1}},
            {"id": "c", "start": 1e300, "duration": 1e300, "events": [{"name": "e", "at": True}, 7]},
            {"id": ""},
            {"name": "without id"},
            "no span",
        ]
    }
    found = spans_of(odd)
    assert [each.id for each in found] == ["a", "b", "c"]
    assert [each.duration for each in found] == [0, 0, 1e12]
    assert (found[1].name, found[1].status, found[0].parent) == ("", "unset", "")
    assert found[2].events[0].at == 0
    assert is_within_the_axis(laid_out(found))
    nothings: list[object] = [None, [], "x", {}, {"spans": {}}]
    for nothing in nothings:
        assert spans_of(nothing) == ()
    assert len(spans_of({"spans": [{"id": str(each)} for each in range(MAX_SPANS + 7)]})) == MAX_SPANS


@pytest.mark.parametrize(
    ("span", "sort"),
    [
        (Span("1", name="invoke_agent summarizer", kind="client"), Sort.CALL),
        (Span("1", name="invoke_agent summarizer", kind="internal"), Sort.HANDLER),
        (Span("1", name="attempt 2 summarizer", kind="client"), Sort.ATTEMPT),
        (Span("1", name="serve summarizer", kind="server"), Sort.SERVE),
        (Span("1", name="execute_tool search"), Sort.TOOL),
        (Span("1", name="chat gpt"), Sort.MODEL),
        (Span("1", name="my own", attributes={"gen_ai.operation.name": "chat"}), Sort.MODEL),
        (Span("1", name="submit q"), Sort.TASK),
        (Span("1", name="process q", attributes={"weft.task": "t"}), Sort.TASK),
        (Span("1", name="process t"), Sort.EVENT),
        (Span("1", name="publish t"), Sort.EVENT),
        (Span("1", name="gateway g"), Sort.GATEWAY),
        (Span("1", name="invoke_workflow w"), Sort.WORKFLOW),
        (Span("1", name="GET", kind="client", attributes={"weft.destination": "x"}), Sort.CALL),
        (Span("1", name="whatever", attributes={"gen_ai.operation.name": ["chat"]}), Sort.OTHER),
    ],
)
def test_each_sort_of_work_has_a_sign_of_its_own(span: Span, sort: Sort) -> None:
    assert sort_of(span) is sort
    assert len({each.sign for each in Sort}) == len(Sort)


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ('[{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]', [Said("user", "hi")]),
        ('[{"role": "user", "content": "hi"}]', [Said("user", "hi")]),
        ('[{"role": "tool", "parts": [{"type": "tool_call", "name": "x"}]}]', None),
        ('[{"role": "user", "parts": [{"type": "te', [Said("", '[{"role": "user", "parts": [{"type": "te')]),
        ('"just text"', [Said("", "just text")]),
        ([{"role": "assistant", "content": {"a": 1}}], [Said("assistant", '{\n  "a": 1\n}')]),
        ("", []),
    ],
)
def test_what_agents_said_is_read_or_else_shown_as_it_is(recorded: object, said: list[Said] | None) -> None:
    span = Span("1", attributes={"gen_ai.input.messages": recorded})
    found = messages_of(span, "gen_ai.input.messages")
    if said is None:
        assert found[0].role == "tool"
        assert '"tool_call"' in found[0].text
    else:
        assert list(found) == said


def test_the_axis_has_few_and_round_times() -> None:
    for length in (1e-6, 0.0031, 0.1, 1, 7.7, 86400 * 3):
        marks = ticks(length)
        assert 3 <= len(marks) <= 7, (length, marks)
        assert marks[0] == 0
        assert marks[-1] <= length * 1.0001
    assert ticks(0) == [0.0]
