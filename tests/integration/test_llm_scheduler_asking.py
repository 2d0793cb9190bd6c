"""The scheduler of calls to models, asked over gRPC as Envoy asks it, with a real NATS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc import aio
from prometheus_client import CollectorRegistry
from tests.integration.llm_replica import Told, replica
from tests.llm_declared import declare, model_pool
from tests.llm_sidecar import LIMIT, LlmSidecar, llm_sidecar
from tests.pki import Pki
from tests.servers import nats_server
from tests.xds import server_identity

from weft.aio.cancellation import end
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.controlplane.llm.ledger_records import TreeAccount
from weft.controlplane.llm.scheduling import LlmScheduling
from weft.store.nats import NatsStore

pytestmark = pytest.mark.asyncio(loop_scope="module")

PKI = Pki()
REVOKED = "spiffe://weft.local/agent/writer/w-9"


@dataclass(frozen=True)
class Running:
    """A replica that schedules."""

    port: int
    models: LlmScheduling
    metrics: CollectorRegistry

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, labels) or 0.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with nats_server(tmp_path_factory.mktemp("nats")) as server:
        store = await NatsStore.connect([server.url], name="declare")
        await declare(
            store,
            model_pool("two", limits={"concurrency": 2}),
            model_pool("one", limits={"concurrency": 1}),
            model_pool(
                "spare", {"name": "p2", "url": "http://127.0.0.1:9/v1", "order": 1}, limits={"concurrency": 1}
            ),
            model_pool("named", tenantHeader="x-team"),
            model_pool("short", limits={"concurrency": 1}, maxWait="1s"),
            {"kind": "Budget", "metadata": {"name": "tiny"}, "spec": {"tokens": 250, "pools": ["bought"]}},
            model_pool("bought"),
            model_pool("closed"),
            {
                "kind": "AccessPolicy",
                "metadata": {"name": "keep-out"},
                "spec": {"effect": "deny", "from": [{"type": "writer"}], "to": [{"pool": "closed"}]},
            },
        )
        await store.close()
        yield server.url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(url: str) -> AsyncIterator[Running]:
    with reserve_port("127.0.0.1") as reserved:
        port = reserved.port
    shown = server_identity(PKI)
    async with replica(url, "one", shown, port, frozenset({REVOKED}), lead_ttl=60.0) as (models, metrics):
        running = asyncio.create_task(models.run(Told()))
        try:
            yield Running(port, models, metrics)
        finally:
            await end([running])


@pytest_asyncio.fixture(loop_scope="module")
async def sidecar(running: Running) -> AsyncIterator[LlmSidecar]:
    async with llm_sidecar(PKI, running.port) as sidecar:
        yield sidecar


async def test_a_call_starts_with_an_id_and_a_provider_and_its_end_makes_room_for_the_next(
    running: Running, sidecar: LlmSidecar
) -> None:
    first = await (await sidecar.ask("one")).answer()
    assert first.admitted
    assert first.provider == "p1"
    assert first.response.request_headers.response.clear_route_cache
    metadata = first.response.dynamic_metadata["weft.llm"]
    assert metadata["call"] == first.call
    waiting = await sidecar.ask("one")
    await sidecar.tell(first.call, "one", "p1", prompt_tokens=7.0, completion_tokens=5.0)
    second = await waiting.answer()
    assert second.admitted
    assert second.call != first.call
    assert running.metric("weft_llm_tokens_total", pool="one", tenant="writer", kind="prompt") == 7
    assert running.metric("weft_llm_calls_total", pool="one", outcome="admitted") >= 2
    await sidecar.tell(second.call, "one", "p1")


@pytest.mark.parametrize("how", ["half", "reset"])
async def test_a_client_that_leaves_while_it_waits_is_not_waited_for(
    running: Running, sidecar: LlmSidecar, how: str
) -> None:
    held = [await (await sidecar.ask("two")).answer() for _ in range(2)]
    gone, waiting = await sidecar.ask("two"), await sidecar.ask("two")
    async with asyncio.timeout(LIMIT):
        await until(lambda: _waits(running, "two", 2))
        if how == "half":
            await gone.leave()
        else:
            gone.reset()
        await until(lambda: _waits(running, "two", 1))
    await sidecar.tell(held[0].call, "two", "p1", status=0, flags=("downstream_connection_termination",))
    after = await waiting.answer()
    assert after.admitted
    for call in (held[1].call, after.call):
        await sidecar.tell(call, "two", "p1")


async def test_what_envoy_says_is_read_strictly(sidecar: LlmSidecar) -> None:
    for headers in (
        {"x_weft_class": "urgent"},
        {"x_weft_deadline": "soon"},
        {"x_weft_budget": "5 euro"},
        {"x_weft_budget": "5 tokens, 6 tokens"},
        {"x_weft_context": "c" * 257},
        {"x_weft_llm_prompt": "-1"},
        {"x_weft_llm_call": "0" * 32},
    ):
        answer = await (await sidecar.ask("two", **headers)).answer()
        assert answer.status == 400, headers
        assert answer.error["code"] == answer.headers["x-weft-error"] == "invalid_request"
        assert next(iter(headers)).replace("_", "-") in answer.error["message"]


async def test_refusals_are_errors_as_openai_writes_them(sidecar: LlmSidecar) -> None:
    unknown = await (await sidecar.ask("nothing")).answer()
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
    late = await (await sidecar.ask("two", x_weft_deadline=str(int(time.time() * 1000) - 1))).answer()
    assert (late.status, late.error["code"]) == (504, "deadline_exceeded")
    held = await (await sidecar.ask("short")).answer()
    waited = await (await sidecar.ask("short")).answer()
    assert (waited.status, waited.error["type"]) == (429, "rate_limit_error")
    assert waited.error["code"] == waited.headers["x-weft-error"] == "waited_too_long"
    await sidecar.tell(held.call, "short", "p1")


async def test_a_budget_is_used_up_by_what_was_used(sidecar: LlmSidecar) -> None:
    first = await (await sidecar.ask("bought")).answer()
    assert first.admitted
    refused = await (await sidecar.ask("bought")).answer()
    assert (refused.status, refused.error["type"]) == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    await sidecar.tell(first.call, "bought", "p1", prompt_tokens=1.0, completion_tokens=1.0)
    async with asyncio.timeout(LIMIT):
        while not (second := await (await sidecar.ask("bought")).answer()).admitted:
            pass
    await sidecar.tell(second.call, "bought", "p1", prompt_tokens=1.0, completion_tokens=1.0)


async def test_a_call_tree_spends_no_more_than_it_says(sidecar: LlmSidecar) -> None:
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "x_weft_budget": "250 tokens"}
    assert (await (await sidecar.ask("named", **headers)).answer()).admitted
    # Another call of the tree, that does not even say what it may spend.
    del headers["x_weft_budget"]
    refused = await (await sidecar.ask("named", **headers)).answer()
    assert refused.error["code"] == "budget_exceeded"


async def test_a_branch_of_a_tree_spends_no_more_than_it_says_and_what_is_left_can_be_asked_for(
    running: Running, sidecar: LlmSidecar
) -> None:
    trace = "c" * 32
    headers = {"traceparent": f"00-{trace}-{'b' * 16}-01"}
    one = {**headers, "x_weft_budget": "1000 tokens, 250 tokens;id=one"}
    first = await (await sidecar.ask("named", **one)).answer()
    assert first.admitted
    refused = await (await sidecar.ask("named", **one)).answer()
    assert (refused.status, refused.error["code"]) == (429, "budget_exceeded")
    assert "branch 'one' of the call tree" in refused.error["message"]
    other = {**headers, "x_weft_budget": "1000 tokens, 250 tokens;id=two, 0.1 usd;id=two"}
    assert (await (await sidecar.ask("named", **other)).answer()).admitted
    tree, *branches = await running.models.standing.tree(trace)
    assert isinstance(tree.account, TreeAccount)
    assert (tree.account.branch, tree.limit.tokens, len(tree.open)) == ("", 1000, 2)
    assert sorted((str(each.account), len(each.open)) for each in branches) == [
        (str(TreeAccount(trace, name)), 1) for name in ("one", "two")
    ]
    assert await running.models.standing.tree("d" * 32) == []
    await sidecar.tell(first.call, "named", "p1", prompt_tokens=3.0, completion_tokens=4.0)

    async def settled() -> bool:
        whole, *_ = await running.models.standing.tree(trace)
        return (whole.spent.tokens, len(whole.open)) == (7, 1)

    async with asyncio.timeout(LIMIT):
        await until(settled)
    nonsense = await (await sidecar.ask("named", **headers, x_weft_budget="1 tokens;id=a b")).answer()
    assert nonsense.status == 400


async def test_a_sidecar_ends_no_calls_but_its_own(running: Running, sidecar: LlmSidecar) -> None:
    held = await (await sidecar.ask("one")).answer()
    waiting = await sidecar.ask("one")
    async with llm_sidecar(PKI, running.port, "writer/w-2") as other:
        await other.tell(held.call, "one", "p1")
        mine = await (await other.ask("two")).answer()
        await other.tell(mine.call, "two", "p1")
        async with asyncio.timeout(LIMIT):
            await until(lambda: _ended(running, "two"))
    assert await _waits(running, "one", 1)
    await sidecar.tell(held.call, "one", "p1")
    await sidecar.tell((await waiting.answer()).call, "one", "p1")


async def test_who_may_not_use_a_pool_takes_none_of_its_room_and_speaks_ill_of_nobody(
    running: Running, sidecar: LlmSidecar
) -> None:
    refused = await (await sidecar.ask("closed")).answer()
    assert (refused.status, refused.error["code"]) == (403, "denied")
    assert "keep-out" in refused.error["message"]
    again = await (await sidecar.ask_again("closed", "", "p1")).answer()
    assert (again.status, again.error["code"]) == (403, "denied")
    async with llm_sidecar(PKI, running.port, "reader/r-1") as reader:
        for each in (sidecar, reader):
            await each.tell("", "closed", "p1")
            await each.tell_failed("", "closed", "p1", 503)
        async with asyncio.timeout(LIMIT):
            await until(lambda: _heard_of_closed(running))
        assert _told_of_closed(running) == (1, 1)
        assert (await (await reader.ask("closed")).answer()).admitted


async def test_the_next_provider_is_asked_for(running: Running, sidecar: LlmSidecar) -> None:
    first = await (await sidecar.ask("spare")).answer()
    await sidecar.tell_failed(first.call, "spare", "p1", 503)
    again = await (await sidecar.ask_again("spare", first.call, "p2")).answer()
    assert again.admitted
    assert not again.response.request_headers.response.header_mutation.set_headers
    await sidecar.tell(first.call, "spare", "p2")
    async with asyncio.timeout(LIMIT):
        await until(lambda: _failed(running))
    assert (await (await sidecar.ask_again("spare", first.call, "p3")).answer()).status == 400


async def test_calls_on_a_lease_are_counted_and_earn_a_lease(running: Running, sidecar: LlmSidecar) -> None:
    async def granted() -> bool:
        for _ in range(20):
            await sidecar.tell("", "named", "p1", tenant="blue", prompt_tokens=3.0, completion_tokens=4.0)
        return running.metric("weft_llm_leases", pool="named") > 0

    async with asyncio.timeout(LIMIT):
        await until(granted)
    assert running.metric("weft_llm_tokens_total", pool="named", tenant="blue", kind="completion") > 0
    assert running.metric("weft_llm_ended_total", pool="named", leased="true") > 0


async def test_figures_and_usage_are_written_for_all_to_read(running: Running, sidecar: LlmSidecar) -> None:
    held = await (await sidecar.ask("one")).answer()
    waiting = await sidecar.ask("one", x_weft_context="c-1")

    async def shown() -> bool:
        with suppress(Exception):
            figures = await running.models.standing.figures()
            return [each.pool for each in figures.waiting] == ["one"]
        return False

    async with asyncio.timeout(LIMIT):
        await until(shown)
    await sidecar.tell(held.call, "one", "p1")
    await sidecar.tell((await waiting.answer()).call, "one", "p1")


@pytest.mark.parametrize(
    ("identity", "code"),
    [
        ("agent/writer/w-9", grpc.StatusCode.PERMISSION_DENIED),
        ("control/c-1", grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_only_sidecars_that_are_not_revoked_ask(
    running: Running, identity: str, code: grpc.StatusCode
) -> None:
    chain, key = PKI.svid(f"spiffe://weft.local/{identity}")
    credentials = grpc.ssl_channel_credentials(PKI.bundle().pem, key, chain)
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with aio.secure_channel(f"127.0.0.1:{running.port}", credentials, options) as channel:
        with pytest.raises(aio.AioRpcError) as refused:
            await (await LlmSidecar(channel, "").ask("one")).answer()
    assert refused.value.code() is code


async def _waits(running: Running, pool: str, calls: int) -> bool:
    term: Any = running.models.term
    return bool(sum(each.pool == pool for each in term.waiting) == calls)


async def _ended(running: Running, pool: str) -> bool:
    return running.metric("weft_llm_ended_total", pool=pool, leased="false") > 0


def _told_of_closed(running: Running) -> tuple[float, float]:
    """Calls that ended there, and attempts that failed."""
    failed = {"pool": "closed", "provider": "p1", "status": "503"}
    return (
        running.metric("weft_llm_ended_total", pool="closed", leased="true"),
        running.metric("weft_llm_attempts_failed_total", **failed),
    )


async def _heard_of_closed(running: Running) -> bool:
    return all(_told_of_closed(running))


async def _failed(running: Running) -> bool:
    name = "weft_llm_attempts_failed_total"
    return running.metric(name, pool="spare", provider="p1", status="503") > 0
