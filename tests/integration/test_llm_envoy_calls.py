"""Calls to models through the real Envoy: what providers get, what the scheduler is asked and told."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import pytest
from tests.llm import (
    USAGE,
    FakeProvider,
    Models,
    answer,
    completion,
    key,
    models,
    pool,
    refusal,
    secret,
    streamed,
    to,
)

from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets

KEYS = secret(one="key-of-one", two="key-of-two")


@pytest.fixture
async def mesh() -> AsyncIterator[Models]:
    async with models(Secrets(Sealer([os.urandom(32)]))) as running:
        yield running


@pytest.fixture
async def one() -> AsyncIterator[FakeProvider]:
    async with FakeProvider().serving() as serving:
        yield serving


async def test_a_call_on_a_lease_reaches_the_provider_with_its_key_and_nothing_of_the_mesh(
    mesh: Models, one: FakeProvider
) -> None:
    await mesh.agent.declare(f"{KEYS}---\n{pool('gpt', {'name': 'one', 'url': one.url, 'key': key('one')})}")
    await mesh.lease("gpt")
    body = json.dumps({"model": "gpt", "messages": [], "x": {"model": "other", "a\\": '"}'}}).encode()
    own = {"x-weft-context": "c-1", "x-weft-llm-cluster": "forward", "openai-organization": "org"}
    response = await mesh.post(body, headers=own)
    assert response.json()["usage"] == USAGE
    assert response.headers["x-weft-llm-provider"] == "one"
    [got] = one.requests
    assert (got.line, got.body) == ("POST /v1/chat/completions HTTP/1.1", body)
    assert got.headers["authorization"] == "Bearer key-of-one"
    assert got.headers["host"] == f"127.0.0.1:{one.port}"
    assert not [each for each in got.headers if each.startswith(("x-", "openai-"))]
    assert not mesh.scheduler.asked
    await mesh.scheduler.heard_of(1)
    [entry] = mesh.scheduler.ended
    told = dict(entry.common_properties.metadata.filter_metadata["weft.llm"].items())
    assert told == {
        **USAGE, "model": "gpt", "pool": "gpt", "endpoint": "chat", "context": "c-1", "stream": 0,
        "prompt": len(body), "output": 0, "tokens": told["tokens"],
    }  # fmt: skip
    assert entry.common_properties.upstream_cluster in {"llm/gpt/one", "provider/gpt/one"}
    dump = (await mesh.agent.admin.get("http://envoy/config_dump?include_eds")).text
    assert "llm-key/gpt/one" in dump
    assert "key-of-one" not in dump


async def test_what_exceeds_the_lease_is_asked_for_and_goes_where_the_scheduler_says(
    mesh: Models, one: FakeProvider
) -> None:
    async with FakeProvider().serving() as two:
        providers = [{"name": "one", "url": one.url}, {"name": "two", "url": two.url}]
        await mesh.agent.declare(pool("gpt", *providers, scheduling={"tenantHeader": "x-team"}))
        mesh.scheduler.decide = to("gpt", "two")
        await mesh.lease("gpt", requests=2)
        for _ in range(2):
            await mesh.call("gpt")
        assert not mesh.scheduler.asked
        asking = {"x-team": "blue", "x-weft-class": "batch", "x-weft-llm-tenant": "forged"}
        response = await mesh.call("gpt", headers=asking, max_tokens=100, n=2, stream=False)
        assert response.headers["x-weft-llm-provider"] == "two"
        assert response.headers["x-weft-llm-call"] == "call-1"
        [asked] = mesh.scheduler.asked
        wanted = {
            "x-weft-llm-model": "gpt", "x-weft-llm-pool": "gpt", "x-weft-llm-tenant": "blue",
            "x-weft-llm-endpoint": "chat", "x-weft-llm-stream": "0", "x-weft-llm-output": "200",
            "x-weft-class": "batch",
        }  # fmt: skip
        assert asked.headers.items() >= wanted.items()
        assert asked.headers["x-weft-llm-prefix"]
        assert not asked.headers.keys() & {"authorization", "x-envoy-attempt-count", "x-weft-llm-cluster"}

        # No lease is so large.
        await mesh.lease("gpt")
        await mesh.call("gpt", max_tokens=10**9)
        assert mesh.scheduler.asked[-1].headers["x-weft-llm-output"] == "1000000000"

        # A new lease is a new grant; what has a budget is asked for all the same; refusals pass as they are.
        await mesh.lease("gpt", requests=1)
        mesh.scheduler.decide = lambda _: refusal(429, "budget_exceeded")
        # What bounds other kinds of answers bounds none of these.
        response = await mesh.call("gpt", headers={"x-weft-budget": "5 tokens"}, max_output_tokens=1)
        assert mesh.scheduler.asked[-1].headers["x-weft-llm-output"] == "0"
        assert (response.status_code, response.json()["error"]["code"]) == (429, "budget_exceeded")
        assert (await mesh.call("gpt")).status_code == 200
        assert (await mesh.call("gpt")).status_code == 429


async def test_the_next_provider_gets_the_call_with_its_own_model_key_and_path(
    mesh: Models, one: FakeProvider
) -> None:
    one.answers = [answer(b'{"error": 1}', status=429, headers="retry-after: 9\r\n")]
    async with FakeProvider().serving() as last:
        providers = [
            {"name": "one", "url": one.url, "model": "m-1", "key": key("one")},
            {"name": "lost", "url": "http://nowhere.invalid/v1", "key": key("two")},
            {"name": "last", "preset": "azure", "model": "dep/x", "key": key("two"),
             "url": f"http://127.0.0.1:{last.port}"},
        ]  # fmt: skip
        await mesh.agent.declare(f"{KEYS}---\n{pool('gpt', *providers)}")
        mesh.scheduler.decide = to("gpt", "one")
        response = await mesh.call("gpt", temperature=0.5)
        assert response.headers["x-weft-llm-provider"] == "last"
        [first], [second] = one.requests, last.requests
        assert json.loads(first.body)["model"] == "m-1"
        assert json.loads(second.body) == {**json.loads(first.body), "model": "dep/x"}
        path = "/openai/deployments/dep%2Fx/chat/completions?api-version=2024-10-21"
        assert second.line == f"POST {path} HTTP/1.1"
        assert (second.headers["api-key"], "authorization" in second.headers) == ("key-of-two", False)
        start, *further = mesh.scheduler.asked
        assert "x-envoy-attempt-count" not in start.headers
        # Where nothing could be connected to, there is nothing to ask any more.
        assert further[-1].headers["x-envoy-attempt-count"] == "3"
        for each in further:
            assert each.metadata["call"] == "call-1"
            assert each.cluster.startswith(("llm/gpt/one", "provider/gpt/"))
            assert not each.headers.keys() & {"authorization", "api-key"}
        await mesh.scheduler.heard_of(1, attempts=2)
        told = {each.common_properties.upstream_cluster: each.response for each in mesh.scheduler.attempts}
        assert {"provider/gpt/one", "provider/gpt/lost"} <= told.keys()
        limited = told["provider/gpt/one"]
        assert limited.response_code.value == 429
        assert limited.response_headers["retry-after"] == "9"


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_a_streams_usage_is_counted_and_only_shown_to_those_who_asked(mesh: Models, piece: int) -> None:
    text = '{"choices":[{"delta":{"content":"data: {"}}],"usage":null}'
    usage = '{"choices":[],"usage":%s}' % json.dumps(USAGE)  # noqa: UP031 - braces
    stream = streamed(text, usage, "[DONE]")
    async with FakeProvider(stream, piece=piece).serving() as provider:
        await mesh.agent.declare(pool("gpt", {"name": "one", "url": provider.url}))
        await mesh.lease("gpt")
        plain = await mesh.call("gpt", stream=True)
        assert plain.text == f"data: {text}\n\ndata: [DONE]\n\n"
        for falsely in (False, 0, "true"):
            told = await mesh.call("gpt", stream=True, stream_options={"include_usage": falsely})
            assert told.text == plain.text
        asked = await mesh.call("gpt", stream=True, stream_options={"include_usage": True})
        assert usage in asked.text
        for each in provider.requests:
            assert json.loads(each.body)["stream_options"] == {"include_usage": True}
        nested = {"x": {"include_usage": True}}
        assert (await mesh.call("gpt", stream=True, stream_options=nested)).text == plain.text
        assert json.loads(provider.requests[-1].body)["stream_options"] == {"include_usage": True, **nested}
        await mesh.scheduler.heard_of(6)
        for entry in mesh.scheduler.ended:
            told = entry.common_properties.metadata.filter_metadata["weft.llm"]
            assert (told["stream"], told["total_tokens"]) == (1, 46)


async def test_large_bodies_pass_both_ways_and_the_model_is_renamed_in_them(mesh: Models) -> None:
    embedding = completion(data=[0.123456789] * 500_000)
    async with FakeProvider(embedding).serving() as provider:
        await mesh.agent.declare(
            pool("gpt", {"name": "one", "url": provider.url, "model": "m-1"}, maxBodyBytes=12_000_000)
        )
        await mesh.lease("gpt", tokens=2**31)
        text = 'say "{\\' * 500_000
        response = await mesh.call("gpt", stream=False, user=text)
        assert len(response.content) > 5_000_000
        sent = json.loads(provider.requests[-1].body)
        assert (sent["model"], sent["user"]) == ("m-1", text)
        refused = await mesh.call("gpt", user="x" * 12_000_000)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
        assert len(provider.requests) == 1
