"""Streamed calls to models through a sidecar that has the stream guard."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import httpx
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from tests.integration.streaming_provider import (
    DONE,
    EVENTS,
    MODE,
    StreamingProvider,
    streaming_provider,
)
from tests.llm import Models, key, models, pool, secret, to

from weft.controlplane.llm.replies import attempt_admitted
from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.native import stream_guard

pytestmark = pytest.mark.skipif(stream_guard() is None, reason="there was no C compiler to build it")

KEYS = secret(one="key-of-one", two="key-of-two")


@pytest.fixture
async def mesh() -> AsyncIterator[Models]:
    async with models(Secrets(Sealer([os.urandom(32)])), guarded=True) as running:
        yield running


@pytest.fixture
async def provider() -> AsyncIterator[StreamingProvider]:
    async with streaming_provider() as serving:
        yield serving


async def _declare(mesh: Models, provider: StreamingProvider) -> None:
    """Pool `gpt` of two providers that are one program; `one` calls the model by another name."""
    url = f"http://127.0.0.1:{provider.port}/v1"
    one = {"name": "one", "url": url, "model": "model-of-one", "key": key("one")}
    two = {"name": "two", "url": url, "key": key("two"), "firstToken": "3s", "order": 1}
    await mesh.agent.declare(f"{KEYS}---\n{pool('gpt', {**one, 'firstToken': '3s'}, two)}")


async def _call(mesh: Models, mode: str, **body: object) -> httpx.Response:
    return await mesh.call("gpt", headers={MODE: mode}, stream=True, **body)


async def test_a_streamed_call_reaches_the_provider_as_any_other_does(
    mesh: Models, provider: StreamingProvider
) -> None:
    await _declare(mesh, provider)
    await mesh.lease("gpt")
    answer = await _call(mesh, "complete", x={"model": "no"})
    assert (answer.status_code, answer.content) == (200, EVENTS + DONE)
    assert answer.headers["x-weft-llm-provider"] == "one"
    assert "x-weft-llm-begun-us" not in answer.headers
    [(headers, body)] = provider.requests
    assert json.loads(body)["model"] == "model-of-one"
    assert json.loads(body)["stream_options"] == {"include_usage": True}
    assert headers["authorization"] == "Bearer key-of-one"
    assert {each for each in headers if each.startswith("x-")} == {MODE}
    await mesh.scheduler.heard_of(1)
    [entry] = mesh.scheduler.ended
    told = dict(entry.common_properties.metadata.filter_metadata["weft.llm"].items())
    assert told["begun_us"].isdecimal()
    assert "broken" not in told


async def test_an_answer_that_breaks_off_midway_ends_with_an_event_and_is_told_of_as_broken(
    mesh: Models, provider: StreamingProvider
) -> None:
    await _declare(mesh, provider)
    await mesh.lease("gpt")
    answer = await _call(mesh, "rst")
    assert answer.content.startswith(EVENTS)
    error = json.loads(answer.content.removeprefix(EVENTS + b"data: "))["error"]
    assert (error["code"], error["message"][:38]) == (
        "stream_broken",
        "provider 'one' broke off the answer mi",
    )
    await mesh.scheduler.heard_of(1)
    [entry] = mesh.scheduler.ended
    assert entry.common_properties.metadata.filter_metadata["weft.llm"]["broken"] == 1


async def test_a_call_on_a_lease_that_needs_another_provider_is_known_by_its_id_from_then_on(
    mesh: Models, provider: StreamingProvider
) -> None:
    await _declare(mesh, provider)
    await mesh.lease("gpt")
    mesh.scheduler.decide = lambda _: ProcessingResponse.FromString(attempt_admitted("call-9"))
    answer = await _call(mesh, "fin=0 complete")
    assert (answer.content, answer.headers["x-weft-llm-call"]) == (EVENTS + DONE, "call-9")
    await mesh.scheduler.heard_of(1)
    [entry] = mesh.scheduler.ended
    assert entry.common_properties.metadata.filter_metadata["weft.llm"]["call"] == "call-9"


async def test_where_there_is_no_next_provider_it_is_said_who_broke_off(
    mesh: Models, provider: StreamingProvider
) -> None:
    await mesh.agent.declare(pool("gpt", {"name": "one", "url": f"http://127.0.0.1:{provider.port}/v1"}))
    await mesh.lease("gpt")
    answer = await _call(mesh, "fin=0")
    assert (answer.status_code, answer.headers["x-weft-error"]) == (502, "stream_broken")
    assert answer.json()["error"]["message"].startswith(
        "provider 'one', which is the only one of pool 'gpt',"
    )
    assert len(provider.requests) == 1


@pytest.mark.parametrize("mode", ["fin=0", "silent=0"])
async def test_who_breaks_off_before_the_first_event_is_replaced_by_the_next_when_the_scheduler_says_so(
    mesh: Models, provider: StreamingProvider, mode: str
) -> None:
    await _declare(mesh, provider)
    mesh.scheduler.decide = to("gpt", "one")
    answer = await _call(mesh, f"{mode} complete")
    assert answer.content == EVENTS + DONE
    assert answer.headers["x-weft-llm-provider"] == "two"
    (_, _), (headers, body) = provider.requests
    assert json.loads(body)["model"] == "gpt"
    assert headers["authorization"] == "Bearer key-of-two"
    start, again = mesh.scheduler.asked
    assert "x-weft-llm-again" not in start.headers
    assert (again.headers["x-weft-llm-again"], again.metadata["call"]) == ("one", "call-1")
    await mesh.scheduler.heard_of(1)
    [entry] = mesh.scheduler.ended
    assert entry.common_properties.metadata.filter_metadata["weft.llm"]["failed"] == "one"
