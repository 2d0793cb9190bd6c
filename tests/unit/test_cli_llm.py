"""`weft llm`, and the API behind it, on figures as the scheduler publishes them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.control_api import ServedApi, served_api

from weft.cli.exit_codes import ExitCode
from weft.cli.main import run
from weft.controlplane.llm.call import Call, Ended, Usage
from weft.controlplane.llm.figures import Health, LeaseFigures, PoolFigures, ProviderFigures, WaitingFigures
from weft.controlplane.llm.figures_record import FiguresRecord, waiting_calls
from weft.controlplane.llm.ledger import BudgetLedger
from weft.controlplane.llm.recent_usage import TenantRate
from weft.controlplane.llm.usage_book import UsageBook
from weft.errors import InvalidRequest
from weft.local.control import ControlApi
from weft.local.llm_control import LlmApi
from weft.model.budget import BudgetSpec
from weft.model.operator import Scope
from weft.model.service_class import ServiceClass

POOL = """
apiVersion: weft.dev/v1alpha1
kind: ModelPool
metadata: {name: gpt}
spec: {models: [gpt-4o, gpt-4o-mini], providers: [{name: one, url: "http://127.0.0.1:1/v1"}]}
---
apiVersion: weft.dev/v1alpha1
kind: ModelPool
metadata: {name: new}
spec: {providers: [{name: one, url: "http://127.0.0.1:1/v1"}]}
"""

PROVIDER = ProviderFigures("one", Health.HEALTHY, None, 3, 40, 9000, 8, 60, None, 0.25, 0.02)
FIGURES = PoolFigures(
    pool="gpt",
    contended=True,
    waiting=(WaitingFigures("coder", ServiceClass.BATCH, 2, 4.5),),
    longest_wait=4.5,
    providers=(PROVIDER, replace(PROVIDER, name="two", health=Health.BROKEN)),
    leases={"p-1": LeaseFigures(1.0, 2.0, 3, 4)},
    admitted=17,
    refused={"queue_full": 2},
    requests_per_second=1.5,
    tokens_per_second=1500.0,
)


def call(number: int, service_class: ServiceClass) -> Call:
    now = time.time()
    return Call(
        f"c{number}", "gpt", "gpt-4o", "coder", service_class, 10, 100, now - number, agent_type="coder"
    )


def end(tenant: str, tokens: int) -> Ended:
    now = time.time()
    return Ended(
        call_id="c",
        pool="gpt",
        provider="one",
        status=200,
        started=now,
        ended=now,
        first_token=None,
        usage=Usage(tokens, 0),
        broken=False,
        cancelled=False,
        estimated_tokens=0,
        sidecar="",
        agent_type=tenant,
        tenant=tenant,
        model="gpt-4o",
        streaming=False,
        context=None,
        key=None,
        news=None,
    )


def standing_now() -> FiguresRecord:
    ledger = BudgetLedger([("daily", BudgetSpec(tokens=1000, usd=2.0))])
    ledger.reserve(call(1, ServiceClass.STANDARD), 900, 0.5, time.time())
    return FiguresRecord(
        time.time(),
        "control-1",
        (FIGURES,),
        waiting_calls([call(1, ServiceClass.BATCH), call(2, ServiceClass.BATCH)]),
        tuple(ledger.figures(time.time())),
        (TenantRate("planner", "gpt", 0.5, 120.0),),
    )


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServedApi]:
    async with served_api(tmp_path) as served:
        for name, value in (await served.environ()).items():
            monkeypatch.setenv(name, value)
        await served.declare(POOL)
        yield served


async def weft(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints."""
    code = await asyncio.to_thread(run, arguments)
    printed = capsys.readouterr()
    assert code == ExitCode.OK, printed.err
    return printed.out


async def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints as JSON."""
    return json.loads(await weft(capsys, *arguments, "-o", "json"))


async def test_pools_and_who_waits_are_shown_as_the_scheduler_told_last(
    api: ServedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    await api.standing.publish(standing_now())
    table = (await weft(capsys, "llm", "pools")).splitlines()
    assert table[1].split() == [
        *("gpt", "gpt-4o,", "gpt-4o-mini", "contended", "2", "4.5s", "6", "1.5", "1500", "1/2", "healthy")
    ]
    assert "not scheduled" in table[2]
    one = await weft(capsys, "llm", "pools", "gpt")
    for part in ("queue_full: 2", "broken", "40 of 60", "3 of 8", "250ms"):
        assert part in one
    queue = await told(capsys, "llm", "queue", "gpt")
    assert [(each["position"], each["id"]) for each in queue] == [(1, "c2"), (2, "c1")]
    assert "batch" in await weft(capsys, "llm", "queue")
    assert await told(capsys, "llm", "queue", "new") == []


async def test_top_shows_who_uses_most_and_who_only_waits(
    api: ServedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    await api.standing.publish(standing_now())
    lines = (await weft(capsys, "llm", "top")).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["planner", "gpt", "120.0", "0.50", "0"],
        ["coder", "gpt", "0.0", "0.00", "2"],
    ]


async def test_budgets_show_what_is_spent_and_set_aside(
    api: ServedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    await api.standing.publish(standing_now())
    table = await weft(capsys, "llm", "budgets")
    for part in ("tenant coder", "0 of 1000", "0.00 of 2.00", "900 tokens, 0.500000", "90%"):
        assert part in table
    (budget,) = await told(capsys, "llm", "budgets")
    assert (budget["value"], budget["setAsideTokens"], budget["share"]) == ("coder", 900, 0.9)


async def test_usage_is_told_apart_by_what_one_asks_for_and_exported_as_csv(
    api: ServedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    book = UsageBook()
    for tenant, tokens in (("planner", 100), ("planner", 50), ("coder", 7)):
        book.add(end(tenant, tokens), 0.01)
    await api.standing.write(book.changed())
    today = datetime.fromtimestamp(time.time(), UTC).date().isoformat()
    exported = await weft(capsys, "llm", "usage", "--by", "tenant,day", "--since", "1d", "--csv")
    shown = [
        (each["tenant"], each["calls"], each["tokens"]) for each in csv.DictReader(io.StringIO(exported))
    ]
    assert shown == [("coder", "1", "7"), ("planner", "2", "150")]
    (row,) = await told(capsys, "llm", "usage", "--by", "pool", "--since", "30d")
    assert (row["pool"], row["tenant"], row["tokens"], row["usd"]) == ("gpt", None, 157, 0.03)
    assert today in await weft(capsys, "llm", "usage")
    assert await told(capsys, "llm", "usage", "--until", "2026-01-01") == []


async def test_what_one_conversation_used_is_told_without_all_others(api: ServedApi) -> None:
    book = UsageBook()
    for context, tokens in (("c 1", 100), ("c 1", 50), ("other", 7), (None, 3)):
        book.add(replace(end("planner", tokens), context=context), 0.01)
    await api.standing.write(book.changed())
    token = (await api.environ(Scope.OPERATOR))["WEFT_TOKEN"]
    async with ControlApi(api.url, token=token, roots=api.roots) as control:
        usage = LlmApi(control).usage
        (row,) = await usage([("by", "context,pool"), ("context", "c 1")])
        assert (row["context"], row["pool"], row["tokens"]) == ("c 1", "gpt", 150)
        assert await usage([("by", "context"), ("context", "nothing")]) == []
        with pytest.raises(InvalidRequest, match="by=context"):
            await usage([("by", "pool"), ("context", "c 1")])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("usage", "--by", "tenant,colour"), "colour"),
        (("usage", "--by", "tenant,tenant"), "each once"),
        (("usage", "--since", "yesterday"), "--since"),
        (("usage", "--since", "2001-01-01"), "400 days"),
        (("usage", "--csv", "-o", "json"), "--csv"),
        (("pools", "unknown"), "unknown"),
        (("top",), "no replica"),
    ],
    ids=["field", "twice", "since", "too long", "two forms", "no pool", "nobody schedules"],
)
async def test_what_cannot_be_answered_is_an_error_that_names_it(
    api: ServedApi, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], part: str
) -> None:
    assert await asyncio.to_thread(run, ["llm", *arguments]) != ExitCode.OK
    assert part in capsys.readouterr().err
