"""What Envoy tells of calls to models: the pool, the model and its tokens, and counts by pool only."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import pytest
from tests.llm import USAGE, FakeProvider, Models, models, pool, streamed
from tests.span_receiver import SpanReceiver

from weft.aio.poll import until
from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.native import stream_guard

TRACED = """
apiVersion: weft.dev/v1alpha1
kind: Telemetry
metadata: {name: default}
spec: {tracing: {samplingPercent: 100}}
---
"""


@pytest.fixture
async def told() -> AsyncIterator[SpanReceiver]:
    async with SpanReceiver() as receiver:
        yield receiver


async def _counters(mesh: Models) -> list[str]:
    found: list[str] = []

    async def some() -> bool:
        answer = await mesh.agent.admin.get("http://envoy/stats", params={"filter": r"^weft\.calls"})
        found[:] = answer.text.splitlines()
        return bool(found)

    await until(some)
    return found


def _stream() -> bytes:
    usage = json.dumps({"choices": [], "usage": USAGE})
    return streamed('{"choices":[{"delta":{"content":"a"}}],"usage":null}', usage, "[DONE]")


@pytest.mark.parametrize(
    ("stream", "guarded"),
    [
        (False, False),
        (True, False),
        pytest.param(
            True, True, marks=pytest.mark.skipif(stream_guard() is None, reason="no C compiler to build it")
        ),
    ],
)
async def test_a_call_to_a_model_is_told_of_with_its_tokens(
    told: SpanReceiver, stream: bool, guarded: bool
) -> None:
    secrets = Secrets(Sealer([os.urandom(32)]))
    answers = [_stream()] if stream else []
    async with (
        FakeProvider(*answers).serving() as provider,
        models(secrets, guarded=guarded, telemetry=told.port) as mesh,
    ):
        found = pool("gpt", {"name": "one", "url": provider.url}, models=["gpt", "*"])
        await mesh.agent.declare(TRACED + found)
        await mesh.lease("gpt")
        answer = await mesh.call("a-model", stream=stream)
        assert answer.status_code == 200, answer.text
        [span] = await told.spans_where(lambda each: each.name.startswith("outbound"))
        tags = {name: value for name, value in span.tags.items() if name.startswith("weft.llm.")}
        assert (tags["weft.llm.pool"], tags["weft.llm.model"]) == ("gpt", "a-model")
        assert (tags["weft.llm.endpoint"], tags["weft.llm.provider"]) == ("chat", "one")
        tokens = (float(tags["weft.llm.input_tokens"]), float(tags["weft.llm.output_tokens"]))
        assert tokens == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
        assert (span.tags["weft.destination"], span.tags["http.url"]) == ("gpt", "/v1/chat/completions")
        [counter] = await _counters(mesh)
        assert counter.startswith("weft.calls.@d.gpt.@k.llm/gpt/one.")
        assert "a-model" not in counter
        assert "x-client-trace-id" not in provider.requests[0].headers
