"""What was used of models: what is charged, what it costs, and the book of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from weft.controlplane.api.usage_csv import usage_csv
from weft.controlplane.llm.call import Ended, Usage
from weft.controlplane.llm.recent_usage import RecentUsage
from weft.controlplane.llm.usage import charge, price
from weft.controlplane.llm.usage_book import OTHERS, UsageBook, open_days, usage_rows
from weft.controlplane.llm.usage_record import Counts, UsageField, UsageOf, UsageRecord
from weft.model.model_pool import Prices

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0
TODAY = date(2026, 11, 21)

END = Ended(
    call_id="c",
    pool="gpt",
    provider="one",
    status=200,
    started=NOON - 1.0,
    ended=NOON,
    first_token=0.1,
    usage=Usage(100, 20, cached_tokens=60),
    broken=False,
    cancelled=False,
    estimated_tokens=300,
    sidecar="spiffe://weft.local/agent/planner/p-1",
    agent_type="planner",
    tenant="planner",
    model="gpt",
    streaming=False,
    context=None,
    key=None,
    news=None,
)


def end(**changes: object) -> Ended:
    return replace(END, **changes)  # type: ignore[arg-type]


def rows(book: UsageBook, *by: UsageField) -> dict[tuple[str, ...], Counts]:
    found = book.rows(TODAY, TODAY, by)
    return {tuple(getattr(each.of, name) for name in by): each.counts for each in found}


@pytest.mark.parametrize(
    ("how", "tokens"),
    [
        ({}, 120),
        ({"usage": None}, 300),
        ({"usage": None, "broken": True}, 300),
        ({"usage": None, "status": 500}, 0),
        ({"usage": None, "status": 429, "provider": None}, 0),
        ({"usage": None, "status": 0, "cancelled": True}, 0),
        ({"usage": Usage(5, 0), "status": 500}, 5),
    ],
    ids=["told", "not told", "broken", "failed", "refused", "left before", "failed but told"],
)
def test_what_was_not_used_is_not_charged(how: dict[str, object], tokens: int) -> None:
    assert charge(end(**how)).tokens == tokens


def test_tokens_that_the_provider_had_in_its_cache_have_a_price_of_their_own() -> None:
    prices = Prices(input=2.0, output=10.0)
    assert price(prices, Usage(1_000_000, 100_000, cached_tokens=500_000)) == 3.0
    cached = Prices(input=2.0, output=10.0, cached_input=1.0)
    assert price(cached, Usage(1_000_000, 100_000, cached_tokens=500_000)) == 2.5


def test_the_book_counts_by_whom_and_of_what_and_says_what_is_estimated() -> None:
    book = UsageBook()
    book.add(END, 0.25)
    book.add(end(usage=None, context="x"), 0.5)
    book.add(end(tenant="coder", usage=None, status=502), 0.0)
    book.add(end(tenant="coder", usage=None, status=200, cancelled=True, model="other"), 0.0)
    assert rows(book, UsageField.TENANT) == {
        ("planner",): Counts(2, 0, 0, 1, 100, 60, 20, 300, 0.75),
        ("coder",): Counts(2, 1, 1, 1, estimated_tokens=300),
    }
    assert rows(book, UsageField.TENANT)["planner",].tokens == 420
    assert set(rows(book, UsageField.MODEL, UsageField.CONTEXT)) == {("gpt", ""), ("gpt", "x"), ("other", "")}


def test_contexts_beyond_so_many_a_day_are_one_and_so_are_rows() -> None:
    book = UsageBook(max_contexts=2, max_rows=4)
    for name in ("a", "b", "c", "d", "a"):
        book.add(end(context=name), 0.0)
    assert {of: each.calls for of, each in rows(book, UsageField.CONTEXT).items()} == {
        ("a",): 2,
        ("b",): 1,
        (OTHERS,): 2,
    }
    for name in ("t1", "t2", "t3"):
        book.add(end(tenant=name), 0.0)
    assert rows(book, UsageField.TENANT)[OTHERS,].calls == 2


def test_who_goes_on_with_the_book_counts_on_from_what_was_written() -> None:
    book = UsageBook()
    book.add(end(context="x"), 0.25)
    (record,) = book.changed()
    assert book.changed() == []
    assert record.key.startswith("2026-11-21.")
    follows = UsageBook()
    follows.restore([UsageRecord.from_json(record.to_json())])
    follows.add(end(context="x"), 0.25)
    (again,) = follows.changed()
    assert (again.key, again.counts.calls, again.counts.usd) == (record.key, 2, 0.5)
    follows.not_written([again])
    assert follows.changed() == [again]


def test_a_page_that_was_closed_is_not_begun_anew() -> None:
    book = UsageBook()
    for back in (3, 2, 1, 0):
        book.add(end(ended=NOON - back * DAY), 0.0)
    assert len(book.changed()) == 4
    book.add(end(ended=NOON - 3 * DAY), 0.0)
    (late,) = book.changed()
    assert (late.of.day, late.counts.calls) == (open_days(NOON)[1], 2)


def test_usage_of_a_time_is_that_of_its_first_and_last_day_too() -> None:
    records = [UsageRecord(UsageOf(day=f"2026-11-{day}"), Counts(calls=1)) for day in (19, 20, 21, 22)]
    found = usage_rows(records, date(2026, 11, 20), TODAY, [UsageField.DAY])
    assert [each.of.day for each in found] == ["2026-11-20", "2026-11-21"]
    assert usage_rows(records, date(2026, 11, 20), TODAY, [])[0].counts.calls == 2


def test_a_spreadsheet_takes_nothing_that_agents_chose_for_a_formula() -> None:
    row = UsageRecord(UsageOf(tenant="=HYPERLINK()", context='a,"b"'), Counts(calls=1, usd=1e-7))
    text = usage_csv([row], [UsageField.TENANT, UsageField.CONTEXT])
    assert text.splitlines()[1] == '\'=HYPERLINK(),"a,""b""",1,0,0,0,0,0,0,0,0,0.000000100'


@pytest.mark.parametrize("text", [b"", b"{}", b'{"day":"today"}', b'{"day":"2026-11-21","calls":-1}'])
def test_a_record_that_is_none_is_not_taken(text: bytes) -> None:
    with pytest.raises(ValueError, match="record of usage"):
        UsageRecord.from_json(text)


def test_rates_are_those_of_the_last_minute() -> None:
    recent = RecentUsage()
    recent.add(END, NOON - 61.0)
    recent.add(END, NOON - 59.0)
    recent.add(end(tenant="coder", usage=Usage(1000, 200)), NOON)
    shown = [(each.tenant, each.pool, each.tokens_per_second) for each in recent.rates(NOON)]
    assert shown == [("coder", "gpt", 20.0), ("planner", "gpt", 2.0)]
    assert recent.rates(NOON + 100.0) == []
