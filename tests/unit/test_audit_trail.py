"""The audit over a store that is there, or away."""

from __future__ import annotations

import time

import pytest

from weft.audit.trail import Audit
from weft.errors import InvalidRequest
from weft.model.audit import AuditRecord, Outcome
from weft.model.audit_codec import MAX_TEXT, AuditCodec
from weft.store.memory import MemoryStore
from weft.store.nats_accounts import AUDIT


def record(action: str, outcome: Outcome = Outcome.DONE) -> AuditRecord:
    return AuditRecord(time.time(), "operator/ada", action, "thing", outcome, observer="one")


async def test_what_is_recorded_during_an_outage_is_written_after_it_in_order() -> None:
    store = MemoryStore()
    async with await Audit.open(store, "control.one") as audit:
        store.interrupt()
        for n in range(3):
            audit.record(record(f"act {n}"))
        assert not await audit.flushed(timeout=0.05)
        store.resume()
        assert [each.action for each in await audit.recent()] == ["act 0", "act 1", "act 2"]
        assert await audit.recent(since=time.time() + 60) == []
    await store.close()


async def test_who_reports_is_told_by_the_journal_and_not_by_the_report() -> None:
    store = MemoryStore()
    async with (
        await Audit.open(store, "agent.worker.x") as liar,
        await Audit.open(store, "control.one") as audit,
    ):
        liar.record(record("call"))
        assert await liar.flushed(timeout=10)
        audit.record(record("apply resource"))
        assert [each.observer for each in await audit.recent()] == ["agent/worker/x", "one"]
        assert [each.action for each in await audit.recent(reporter="agent")] == ["call"]
    await store.close()


async def test_denials_by_the_control_plane_cannot_crowd_out_what_was_done() -> None:
    store = MemoryStore()
    async with await Audit.open(store, "control.one") as audit:
        audit.record(record("apply resource"))
        audit.record(record("connect", Outcome.DENIED))
        assert await audit.flushed(timeout=10)
    journal = await store.journal(AUDIT, AuditCodec())
    assert [each.tail for each in await journal.recent()] == ["control.one.done", "control.one.denied"]
    await store.close()


async def test_long_texts_are_cut_and_what_is_no_record_stops_nothing() -> None:
    store = MemoryStore()
    async with await Audit.open(store, "control.one") as audit:
        audit.record(AuditRecord(-1.0, "", "", "", Outcome.DONE))
        audit.record(record("x" * 5000))
        (kept,) = await audit.recent()
        assert kept.action == "x" * MAX_TEXT
    await store.close()


def test_the_codec_takes_nothing_that_is_no_record() -> None:
    codec = AuditCodec()
    kept = record("call")
    assert codec.decode(codec.encode(kept)) == kept
    for data in (b"", b"{}", b"[]", codec.encode(kept).replace(b"done", b"fine")):
        with pytest.raises(ValueError, match="not an audit record"):
            codec.decode(data)
    with pytest.raises(InvalidRequest):
        codec.encode(AuditRecord(float("nan"), "", "", "", Outcome.DONE))
