"""What is believed of what Envoy's access logs tell of a call."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from tests.unit.llm.scheduling import NOW, pool, provider

from weft.controlplane.llm.call import Ended
from weft.controlplane.llm.call_ids import new_call_id
from weft.controlplane.llm.peers import Peer
from weft.controlplane.llm.reports import ended_call, failed_attempt
from weft.controlplane.llm.usage import charge
from weft.model.llm_wire import METADATA, NEVER_LEASED, order_cluster, provider_cluster

WRITER = Peer("spiffe://weft.local/agent/writer/w-1", "writer", "writer.w-1")
POOL = pool(provider("a"), assumedOutputTokens=1000)


def told(answer_bytes: int = 0, **fields: Any) -> Ended:
    """A call with a prompt of 100 tokens and a status of 200, of which Envoy tells that."""
    entry = HTTPAccessLogEntry()
    common = entry.common_properties
    known = {"call": new_call_id(WRITER.sidecar), "pool": POOL.name, "prompt": 400, "tokens": NEVER_LEASED}
    common.metadata.filter_metadata[METADATA].update({**known, **fields})
    common.upstream_cluster = provider_cluster(POOL.name, "a")
    entry.response.response_code.value = 200
    entry.response.response_body_bytes = answer_bytes
    ended = ended_call(entry, WRITER, {POOL.name: POOL}, NOW)
    assert ended is not None
    return ended


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"output": 50}, 150),
        ({"output": 50, "stream": 1, "answer_bytes": 10**6}, 150),
        ({}, 1100),
        ({"stream": 1, "answer_bytes": 2560}, 1100),
        ({"stream": 1, "answer_bytes": 2_560_000}, 10_100),
        ({"endpoint": "embeddings"}, 100),
        ({"tokens": 700, "stream": 1}, 700),
        ({"tokens": 700, "stream": 1, "answer_bytes": 256_000}, 1100),
    ],
)
def test_an_answer_that_does_not_say_what_it_used_is_not_cheaper_for_having_no_bound(
    fields: dict[str, Any], tokens: int
) -> None:
    assert charge(told(**fields)).tokens == tokens


def test_what_an_answer_says_counts_whatever_was_estimated() -> None:
    ended = told(stream=1, answer_bytes=10**6, prompt_tokens=7, completion_tokens=5)
    assert charge(ended).tokens == 12


@pytest.mark.parametrize(("providers", "known"), [(1, True), (2, False)])
def test_an_attempt_in_the_cluster_of_an_order_is_known_where_that_has_one_provider(
    providers: int, known: bool
) -> None:
    of = pool(*(provider(name) for name in "ab"[:providers]))
    entry = HTTPAccessLogEntry()
    entry.common_properties.upstream_cluster = order_cluster(of.name, "a")
    entry.common_properties.time_to_first_upstream_rx_byte.nanos = 1
    entry.response.response_code.value = 503
    attempt = failed_attempt(entry, {of.name: of}, NOW)
    assert (attempt is not None and attempt.provider == "a") == known
