from __future__ import annotations

import asyncio
import json

import pytest

from weft.model.audit import AuditRecord, Outcome
from weft.sidecar.denials import MAX_LINE, parse_denial, relay_denials

CALL = {
    "kind": "call",
    "time": "1795257900.134",
    "caller": "spiffe://weft.local/agent/editor/e-1",
    "peer": "10.0.0.7:50846",
    "method": "POST",
    "path": "/rpc",
    "authority": "summarizer.mesh",
    "details": "rbac_access_denied_matched_policy[only-bosses]",
}


def line(**fields: object) -> str:
    return json.dumps({**CALL, **fields})


def parsed(text: str) -> AuditRecord | None:
    return parse_denial(text, callee="summarizer", observer="summarizer.s-1")


def test_a_call_refused_by_a_policy_names_it() -> None:
    assert parsed(line()) == AuditRecord(
        time=1795257900.134,
        who="spiffe://weft.local/agent/editor/e-1",
        action="call",
        target="summarizer POST /rpc",
        outcome=Outcome.DENIED,
        policy="only-bosses",
        observer="summarizer.s-1",
        details={"peer": "10.0.0.7:50846", "authority": "summarizer.mesh"},
    )


def test_what_is_refused_by_default_says_so() -> None:
    denial = parsed(line(details="rbac_access_denied_matched_policy[none]"))
    assert denial is not None
    assert (denial.policy, "default" in denial.reason) == ("", True)


def test_what_an_unverified_certificate_says_is_a_claim() -> None:
    denial = parsed(line(kind="connection", reason="certificate has expired", details=None))
    assert denial is not None
    assert (denial.who, denial.reason) == ("unauthenticated 10.0.0.7:50846", "certificate has expired")
    assert denial.details["claimed"] == CALL["caller"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "warning main: something else",
        "{",
        "[" * MAX_LINE,
        '{"a":' * 1600,
        "[]",
        json.dumps("text"),
        json.dumps({**CALL, "time": 7}),
        line(time="nan"),
        line(time="soon"),
        line(path={"nested": "object"}),
        line(kind="something else"),
        line(path="x" * MAX_LINE),
    ],
    ids=range(13),
)
def test_what_is_no_denial_is_passed_over(text: str) -> None:
    assert parsed(text) is None


def test_no_field_can_be_long() -> None:
    denial = parsed(line(path="x" * 3000, caller="y" * 3000))
    assert denial is not None
    assert max(len(denial.target), len(denial.who)) <= 1000


async def test_a_flood_of_denials_is_passed_on_in_part() -> None:
    stream = asyncio.StreamReader(limit=1024)
    told: list[AuditRecord] = []
    stream.feed_data(b"x" * 5000 + b"\n" + f"{line()}\n".encode() * 1000)
    stream.feed_eof()
    await relay_denials(stream, told.append, callee="summarizer", observer="s-1")
    assert len(told) == 100
