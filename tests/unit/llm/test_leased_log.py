"""Calls on leases are added up; what is said of them is the same as if each had been told of by itself."""

from __future__ import annotations

from typing import Any

from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.llm.scheduling import NOW, NoBudgets, pool, provider

from weft.controlplane.llm.leased_log import LeasedLog
from weft.controlplane.llm.peers import Peer
from weft.controlplane.llm.pool import PoolScheduler
from weft.controlplane.llm.recent_usage import RecentUsage
from weft.controlplane.llm.reports import ended_call
from weft.controlplane.llm.usage_book import UsageBook
from weft.model.llm_wire import CALL_HEADER, METADATA, NEVER_LEASED, PROVIDER_HEADER

WRITER = Peer("spiffe://weft.local/agent/writer/w-1", "writer", "writer.w-1")
LIMITS = {"requestsPerMinute": 1_000_000, "tokensPerMinute": 1_000_000_000}
POOL = pool(provider("a", limits=LIMITS), provider("b", limits=LIMITS), tenantHeader="x-team")
POOLS = {POOL.name: POOL}

_COUNTS = st.integers(0, 3000).map(float)
_SAID = st.fixed_dictionaries(
    {
        "pool": st.just(POOL.name),
        "tokens": st.sampled_from([20.0, 700.0, float(NEVER_LEASED)]),
        "stream": st.sampled_from([0.0, 1.0]),
    },
    optional={
        "model": st.sampled_from(["m", "n" * 300]),
        "tenant": st.sampled_from(["blue", "red\n"]),
        "context": st.sampled_from(["c", "d" * 256, "e" * 257]),
        "prompt": _COUNTS,
        "output": _COUNTS,
        "prompt_tokens": _COUNTS | st.just("12"),
        "completion_tokens": _COUNTS,
        "total_tokens": _COUNTS,
        "cached_tokens": _COUNTS,
        "begun_us": _COUNTS,
        "broken": st.just(1.0),
        "endpoint": st.just("embeddings"),
    },
)


@st.composite
def entries(draw: st.DrawFn) -> HTTPAccessLogEntry:
    """Most of them plain."""
    entry = HTTPAccessLogEntry()
    common = entry.common_properties
    fields: dict[str, Any] = draw(_SAID)
    if draw(st.integers(0, 3)):
        fields |= {"prompt_tokens": 1.0 + draw(_COUNTS), "completion_tokens": 1.0 + draw(_COUNTS)}
    common.metadata.filter_metadata[METADATA].update(fields)
    common.duration.FromMilliseconds(draw(st.sampled_from([0, 5, 59_000, 61_000])))
    if draw(st.booleans()):
        common.time_to_first_upstream_tx_byte.FromMilliseconds(1)
        common.time_to_first_upstream_rx_byte.FromMilliseconds(draw(st.integers(0, 9)))
    if not draw(st.integers(0, 5)):
        common.response_flags.downstream_connection_termination = True
    entry.response.response_code.value = draw(st.sampled_from([200, 200, 200, 204, 429, 502]))
    entry.response.response_headers[PROVIDER_HEADER] = draw(st.sampled_from(["a", "b", "c"]))
    if not draw(st.integers(0, 9)):
        entry.response.response_headers[CALL_HEADER] = "0" * 32
    entry.response.response_body_bytes = draw(st.integers(0, 1_000_000))
    return entry


@given(st.lists(entries(), max_size=12))
def test_calls_that_are_added_up_count_as_each_by_itself(given_entries: list[HTTPAccessLogEntry]) -> None:
    log = LeasedLog(WRITER, POOLS, NOW)
    taken = [each for each in given_entries if log.take(each)]
    added, single = _Heard(), _Heard()
    for ends in log.ends:
        assert ends.calls == len(ends.lengths)
        added.scheduler.ended_on_leases(ends, NOW)
        added.book.add_all(ends, 0.0)
        added.recent.add_all(ends, NOW)
    demanded = 0
    for entry in taken:
        ended = ended_call(entry, WRITER, POOLS, NOW)
        assert ended is not None
        assert ended.call_id is None
        assert ended.news is None
        demanded += ended.estimated_tokens
        single.scheduler.ended(ended, NOW)
        single.book.add(ended, 0.0)
        single.recent.add(ended, NOW)
    assert sum(each.estimated_tokens for each in log.ends) == demanded
    assert added.says() == single.says()


@given(entries())
def test_what_ended_otherwise_than_well_is_read_by_itself(entry: HTTPAccessLogEntry) -> None:
    if LeasedLog(WRITER, POOLS, NOW).take(entry):
        ended = ended_call(entry, WRITER, POOLS, NOW)
        assert ended is not None
        assert 200 <= ended.status < 300
        assert not ended.broken
        assert not ended.cancelled
        assert ended.usage is not None


def test_a_plain_call_is_not_read_by_itself() -> None:
    log = LeasedLog(WRITER, POOLS, NOW)
    entry = HTTPAccessLogEntry()
    said = {"pool": POOL.name, "model": "m", "tokens": 20, "prompt_tokens": 7, "completion_tokens": 5}
    entry.common_properties.metadata.filter_metadata[METADATA].update(said)
    entry.common_properties.duration.FromMilliseconds(5)
    entry.response.response_code.value = 200
    entry.response.response_headers[PROVIDER_HEADER] = "a"
    assert log.take(entry)
    assert log.take(entry)
    (ends,) = log.ends
    assert (ends.calls, ends.tokens, ends.provider, ends.tenant) == (2, 24, "a", "writer")


class _Heard:
    """All that hears how calls ended."""

    def __init__(self) -> None:
        self.scheduler = PoolScheduler(POOL, NoBudgets(), now=NOW)
        self.book = UsageBook()
        self.recent = RecentUsage()

    def says(self) -> object:
        figures = self.scheduler.figures(NOW)
        return (
            {each.of: each.counts for each in self.book.changed()},
            self.recent.rates(NOW),
            [(each.name, each.health, each.tokens_in_window) for each in figures.providers],
        )
