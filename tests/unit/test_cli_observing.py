"""What `weft top`, `weft traces` and `weft trace` make of what the API tells."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from weft.cli.main import run
from weft.cli.top_table import Order, rows, top_table
from weft.cli.trace_drawing import facts, notes, traces_table, waterfall_table

WIDTH = 160


def destination(name: str, calls: float, *, kind: str = "agent", **more: Any) -> dict[str, Any]:
    return {
        "destination": name,
        "kind": kind,
        "callsPerSecond": calls,
        "errorsPerSecond": 0.0,
        "refusedPerSecond": 0.0,
        "p50": 0.003,
        "p90": 0.01,
        "p99": 0.2,
        "calls": round(calls * 30),
        "errors": 0,
        "callers": ["planner"],
        **more,
    }


def agent(agent_type: str, status: str = "healthy", in_flight: int = 0) -> dict[str, Any]:
    return {"type": agent_type, "status": status, "inFlight": in_flight}


def shown(what: Any, width: int = WIDTH) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(what)
    return console.export_text()


CALLED = [
    destination("summarizer", 12.5, errorsPerSecond=2.0, errors=60, callers=["a", "b", "c", "d"]),
    destination("translator", 40.0, p99=0.1),
    destination("gpt", 1.0, kind="model", refusedPerSecond=0.5),
]
AGENTS = [agent("summarizer", in_flight=2), agent("summarizer", "draining", 1), agent("quiet")]


def names(order: Order) -> list[str]:
    return [each["destination"] for each in rows(CALLED, AGENTS, order)]


def test_rows_come_in_the_order_that_is_asked_for() -> None:
    assert names(Order.CALLS) == ["translator", "summarizer", "gpt", "quiet"]
    assert names(Order.ERRORS)[0] == names(Order.P99)[1] == names(Order.IN_FLIGHT)[0] == "summarizer"
    assert names(Order.NAME) == ["gpt", "quiet", "summarizer", "translator"]


def test_who_answers_stands_beside_what_is_called_and_the_quiet_are_there_too() -> None:
    found = {each["destination"]: each for each in rows(CALLED, AGENTS, Order.CALLS)}
    assert {key: found["summarizer"][key] for key in ("instances", "healthy", "inFlight")} == {
        "instances": 2,
        "healthy": 1,
        "inFlight": 3,
    }
    assert (found["quiet"]["calls"], found["quiet"]["instances"]) == (0, 1)
    assert found["gpt"]["instances"] is None


def test_the_table_says_rates_shares_and_lengths() -> None:
    lines = shown(top_table(rows(CALLED, AGENTS, Order.CALLS))).splitlines()
    summarizer = next(line for line in lines if line.startswith("summarizer")).split()
    assert summarizer == [
        "summarizer",
        "agent",
        "12.5",
        "16.0%",
        "3ms",
        "200ms",
        "3",
        "1/2",
        "a,",
        "b,",
        "c",
        "+1",
    ]


def test_what_does_not_fit_is_counted() -> None:
    many = rows([destination(f"d-{number}", number) for number in range(50)], [], Order.CALLS)
    text = shown(top_table(many, 10))
    assert "41 more" in text
    assert "d-41" in text
    assert "d-40" not in text


def span(name: str, parent: str = "", **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "parent": parent,
        "name": name,
        "kind": "client",
        "service": "planner",
        "instance": "planner-1",
        "start": 100.0,
        "duration": 1.0,
        "status": "unset",
        "message": "",
        "attributes": {},
        "events": [],
        **more,
    }


TRACE = {
    "id": "ab" * 16,
    "start": 100.0,
    "duration": 1.0,
    "cut": True,
    "spans": [
        span("call", attributes={"weft.context": "talk-1"}),
        span("attempt", "call", start=100.25, duration=0.5, status="error", message="no answer"),
        span("serve", "attempt", start=90.0, duration=0.1, instance="other-1"),
        span("lost", "nowhere", start=100.5, duration=0.0, attributes={"weft.error": "denied"}),
        span("\x1b[2Jbad", "call", start=100.2, duration=-1),
    ],
}


def test_a_waterfall_has_every_span_below_its_cause_and_in_its_place() -> None:
    lines = shown(waterfall_table(TRACE, WIDTH)).splitlines()
    place = {line.split()[0]: line for line in lines[1:]}
    assert [name for name in ("call", "attempt", "serve") if name in place] == ["call", "attempt", "serve"]
    assert place["attempt"].startswith("  attempt")
    assert place["serve"].startswith("    serve")
    assert place["attempt"].count("█") == pytest.approx(place["call"].count("█") / 2, abs=1)
    assert place["attempt"].index("█") > place["call"].index("█")
    assert "no answer" in place["attempt"]
    assert "100ms~" in place["serve"]
    assert "? lost" in "\n".join(lines)
    assert "denied" in "\n".join(lines)
    assert "\x1b" not in "\n".join(lines)


def test_what_is_to_be_known_of_a_trace_is_said() -> None:
    assert dict(facts(TRACE))["Conversation"] == "talk-1"
    assert dict(facts(TRACE))["Spans"] == "5, 1 of them failed"
    assert [each[0] for each in notes(TRACE)] == ["s", "?", "~"]
    assert list(notes({"spans": []})) == []


def test_a_list_of_traces_tells_what_went_wrong_where() -> None:
    trace = {
        "id": "ab" * 16,
        "name": "invoke_agent summarizer",
        "service": "planner",
        "start": 100.0,
        "duration": 0.25,
        "spans": 17,
        "errors": 1,
        "services": ["a", "b", "c", "d", "e", "f"],
    }
    text = shown(traces_table([trace]))
    for each in ("ab" * 16, "250ms", "invoke_agent summarizer", "planner", "17", "e +1"):
        assert each in text


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["top", "--window", "1s"], "--window"),
        (["top", "--sort", "colour"], "--sort"),
        (["traces", "--limit", "0"], "--limit"),
        (["traces", "--min-duration", "long"], "--min-duration"),
        (["traces", "--status", "bad"], "--status"),
        (["drain", "summarizer"], "TYPE/INSTANCE"),
        (["drain", "/x"], "TYPE/INSTANCE"),
        (["logs", "--tail", "-1"], "--tail"),
        (["logs", "--since", "yesterday"], "--since"),
    ],
)
def test_a_wrong_use_is_named(arguments: list[str], names: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert names in capsys.readouterr().err
