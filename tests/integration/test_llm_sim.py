"""The simulated provider as a process of its own, asked by OpenAI's library and by clients that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from weft import AgentFailed
from weft.aio.poll import until
from weft.testing import InMemoryMesh, SimulatedLLM

ROOT = Path(__file__).parents[2]

LIMIT = 60.0

HELLO: Any = [{"role": "user", "content": "hello"}]

WEATHER: Any = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOLS: Any = [{"type": "function", "function": WEATHER}]


@pytest.fixture(scope="module")
def process() -> Iterator[SimulatedLLM]:
    with SimulatedLLM(first_token="0s", tokens_per_second=0, answer_tokens=12, record=10) as simulated:
        yield simulated


@pytest.fixture
def llm(process: SimulatedLLM) -> SimulatedLLM:
    before = {"first_token": "0s", "tokens_per_second": 0, "outage": "none", "failure_rate": 0, "usage": True}
    limits = dict.fromkeys(("concurrency", "requests_per_minute", "tokens_per_minute", "context_tokens"))
    process.behave(**before, **limits, models=[])
    process.reset()
    return process


@pytest.fixture
async def client(llm: SimulatedLLM) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=llm.url, api_key="any", max_retries=0, timeout=LIMIT) as client:
        yield client


@asynccontextmanager
async def connected(llm: SimulatedLLM) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port(llm))
    try:
        async with asyncio.timeout(LIMIT):
            yield reader, writer
    finally:
        writer.close()


def port(llm: SimulatedLLM) -> int:
    return int(llm.url.rpartition(":")[2].removesuffix("/v1"))


def request(path: str = "/v1/chat/completions", **headers: str) -> bytes:
    body = json.dumps({"model": "m", "messages": HELLO})
    lines = {
        "host": "x",
        "content-length": str(len(body)),
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n{body}".encode()


async def eventually(llm: SimulatedLLM, **wanted: object) -> None:
    async def holds() -> bool:
        stats = await asyncio.to_thread(llm.stats)
        return all(stats[name] == value for name, value in wanted.items())

    async with asyncio.timeout(LIMIT):
        await until(holds)


async def test_openais_library_gets_answers_that_say_what_they_are(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="gpt-9", messages=HELLO, n=2, max_tokens=8
    )
    answer = raw.parse()
    assert raw.headers["x-weft-simulated"] == "true"
    assert (answer.model, answer.system_fingerprint) == ("gpt-9", "weft-llm-sim")
    assert [each.finish_reason for each in answer.choices] == ["length", "length"]
    assert all((each.message.content or "").startswith("(simulated answer)") for each in answer.choices)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 16)
    again = await client.chat.completions.create(model="gpt-9", messages=HELLO, n=2, max_tokens=8)
    assert again.choices == answer.choices
    written = await client.completions.create(model="gpt-9", prompt="hello")
    assert written.choices[0].finish_reason == "stop"
    assert [each.id async for each in client.models.list()] == ["weft-llm-sim"]


async def test_a_stream_has_the_words_of_the_whole_answer_and_its_usage_if_asked(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(
        model="m", messages=HELLO, extra_headers={"x-sim-text": "exactly these words"}
    )
    stream = await client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "hello [[sim text='exactly these words']]"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [each async for each in stream]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    texts = [each.choices[0].delta.content or "" for each in chunks if each.choices]
    assert len(texts) == 7
    assert "".join(texts) == whole.choices[0].message.content == "exactly these words"
    pieces = await client.completions.create(model="m", prompt="hello", stream=True)
    assert len([each async for each in pieces]) == 13


async def test_tools_are_called_where_the_request_insists_or_wishes_it(client: AsyncOpenAI) -> None:
    forced = await client.chat.completions.create(
        model="m", messages=HELLO, tools=TOOLS, tool_choice="required"
    )
    assert forced.choices[0].finish_reason == "tool_calls"
    async with client.chat.completions.stream(
        model="m", messages=HELLO, tools=TOOLS, extra_headers={"x-sim-tool": "weather"}
    ) as stream:
        calls = (await stream.get_final_completion()).choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "simulated"}
    left_alone = await client.chat.completions.create(model="m", messages=HELLO, tools=TOOLS)
    assert left_alone.choices[0].finish_reason == "stop"


async def test_responses_are_answered_whole_and_as_events(client: AsyncOpenAI) -> None:
    whole = await client.responses.create(model="m", input="hello")
    assert whole.output_text.startswith("(simulated answer)")
    assert whole.usage is not None
    assert (whole.usage.output_tokens, whole.usage.total_tokens) == (12, 18)
    short = await client.responses.create(model="m", input="hello", max_output_tokens=3)
    assert (short.status, short.output_text) == ("incomplete", "(simulated a")
    async with client.responses.stream(model="m", input="hello") as stream:
        assert (await stream.get_final_response()).output_text.startswith("(simulated answer)")
    tool: Any = {"type": "function", **WEATHER}
    async with client.responses.stream(model="m", input="x", tools=[tool], tool_choice="required") as calling:
        (item,) = (await calling.get_final_response()).output
    assert (item.type, getattr(item, "arguments", "")) == ("function_call", '{"city":"simulated"}')


async def test_embeddings_are_the_same_for_the_same_text_and_of_length_one(client: AsyncOpenAI) -> None:
    found = await client.embeddings.create(model="m", input=["one", "two", "one"], dimensions=64)
    first, second, third = (each.embedding for each in found.data)
    assert first == third != second
    assert sum(each * each for each in first) == pytest.approx(1.0, abs=1e-5)
    as_text = await client.embeddings.create(model="m", input="one", dimensions=64, encoding_format="float")
    assert as_text.data[0].embedding == pytest.approx(first)


async def test_azures_paths_name_the_model_and_need_a_version(llm: SimulatedLLM) -> None:
    endpoint = llm.url.removesuffix("/v1")
    async with AsyncAzureOpenAI(azure_endpoint=endpoint, api_key="any", api_version="2024-10-21") as azure:
        answer = await azure.chat.completions.create(model="deployed", messages=HELLO)
    assert answer.model == "deployed"
    (seen,) = llm.requests()
    assert seen["path"] == "/openai/deployments/deployed/chat/completions"
    assert seen["headers"]["api-key"].startswith("sha256:")
    async with connected(llm) as (reader, writer):
        writer.write(request("/openai/deployments/deployed/chat/completions"))
        assert b" 404 " in await reader.readline()


async def test_a_prompt_that_was_seen_before_is_cached(client: AsyncOpenAI, llm: SimulatedLLM) -> None:
    long: Any = [{"role": "user", "content": "a long beginning " * 100}]

    async def cached() -> int | None:
        answer = await client.chat.completions.create(model="m", messages=long)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens

    assert [await cached(), await cached()] == [0, 384]
    llm.behave(usage=False)
    assert (await client.chat.completions.create(model="m", messages=long)).usage is None


async def test_every_limit_is_kept_exactly_and_told(client: AsyncOpenAI, llm: SimulatedLLM) -> None:
    llm.behave(concurrency=3, requests_per_minute=5, first_token="300ms")
    asked = [client.chat.completions.create(model="m", messages=HELLO) for _ in range(8)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [each for each in answers if isinstance(each, openai.RateLimitError)]
    assert len(refused) == 5
    assert {each.code for each in refused} == {"rate_limit_exceeded"}
    assert all(int(each.response.headers["retry-after"]) >= 1 for each in refused)
    llm.behave(first_token="0s", concurrency=None, tokens_per_minute=75)
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=HELLO)
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert raw.headers["x-ratelimit-remaining-tokens"] == "3"
    with pytest.raises(openai.RateLimitError, match="tokens per min"):
        await client.chat.completions.create(model="m", messages=HELLO)
    stats = llm.stats()
    assert (stats["mostInFlight"], stats["mostRequestsPerMinute"], stats["requests"]) == (3, 4, 4)
    assert stats["refused"] == {"concurrency": 5, "requests": 0, "tokens": 1}
    assert stats["mostTokensPerMinute"] == 72


async def test_a_client_that_leaves_frees_its_slot_at_once(client: AsyncOpenAI, llm: SimulatedLLM) -> None:
    llm.behave(concurrency=1)
    slow = {"x-sim-answer-tokens": "5000", "x-sim-tokens-per-second": "20"}
    stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True, extra_headers=slow)
    async for _ in stream:
        break
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="m", messages=HELLO)
    await stream.close()
    await eventually(llm, inFlight=0, cancelled=1)
    await client.chat.completions.create(model="m", messages=HELLO)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_answers_break_off_where_it_is_wished(
    client: AsyncOpenAI, llm: SimulatedLLM, *, streamed: bool
) -> None:
    wish = {"x-sim-break-after": "3"}

    async def ask() -> None:
        if not streamed:
            await client.chat.completions.create(model="m", messages=HELLO, extra_headers=wish)
            return
        stream = await client.chat.completions.create(
            model="m", messages=HELLO, stream=True, extra_headers=wish
        )
        async for _ in stream:
            pass

    with pytest.raises(openai.APIConnectionError):
        await ask()
    await eventually(llm, broken=1, completionTokens=3, inFlight=0)


async def test_failures_are_those_that_are_wished(client: AsyncOpenAI, llm: SimulatedLLM) -> None:
    async def fails(**wish: str) -> openai.APIError:
        headers = {f"x-sim-{name.replace('_', '-')}": value for name, value in wish.items()}
        with pytest.raises(openai.APIError) as failed:
            await client.chat.completions.create(model="m", messages=HELLO, extra_headers=headers)
        return failed.value

    overloaded = await fails(fail="503", retry_after="2s")
    assert isinstance(overloaded, openai.InternalServerError)
    assert overloaded.response.headers["retry-after"] == "2"
    page = await fails(html="true")
    assert isinstance(page, openai.InternalServerError)
    assert page.response.text.startswith("<html>")
    assert isinstance(await fails(close="true"), openai.APIConnectionError)
    stream = await client.chat.completions.create(
        model="m", messages=HELLO, stream=True, extra_headers={"x-sim-error-after": "2"}
    )
    with pytest.raises(openai.APIError, match="as it was told"):
        async for _ in stream:
            pass
    llm.behave(outage="error")
    assert isinstance(await fails(), openai.InternalServerError)
    llm.behave(outage="hang")
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.5).chat.completions.create(model="m", messages=HELLO)
    await eventually(llm, failed=4, broken=1, cancelled=1, inFlight=0)


async def test_what_is_no_sound_request_is_refused_in_openais_format(
    client: AsyncOpenAI, llm: SimulatedLLM
) -> None:
    llm.behave(models=["small"], context_tokens=20)
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="m", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_long:
        await client.chat.completions.create(model="small", messages=HELLO, max_tokens=15)
    assert too_long.value.code == "context_length_exceeded"
    answer = await client.chat.completions.create(model="small", messages=HELLO)
    assert answer.choices[0].finish_reason == "stop"
    assert llm.stats()["invalid"] == 2


async def test_a_key_that_is_set_must_be_given() -> None:
    with SimulatedLLM(key="sk-right", first_token="0s", tokens_per_second=0) as llm:
        async with AsyncOpenAI(base_url=llm.url, api_key="sk-wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="m", messages=HELLO)
            await client.with_options(api_key="sk-right").chat.completions.create(model="m", messages=HELLO)
        assert list(llm.stats()["byKey"]) == ["environment"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HELLO\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n{", 400),
    ],
    ids=["no http", "large headers", "large body", "unknown path", "wrong method", "no json"],
)
async def test_bad_input_gets_an_error_and_nothing_else(llm: SimulatedLLM, sent: bytes, status: int) -> None:
    async with connected(llm) as (reader, writer):
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert set(json.loads(await reader.readexactly(length))["error"]) == {
            "message",
            "type",
            "param",
            "code",
        }


async def test_requests_in_a_row_are_answered_in_their_order(llm: SimulatedLLM) -> None:
    async with connected(llm) as (reader, writer):
        texts = ("first", "second", "third")
        delays = ("200ms", "0s", "50ms")
        for text, delay in zip(texts, delays, strict=True):
            writer.write(request(x_sim_text=text, x_sim_first_token=delay))
        for text in texts:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length))["choices"][0]["message"]["content"] == text


async def test_the_example_of_an_agent_that_asks_models_is_tested_so(
    llm: SimulatedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", llm.url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    agent = runpy.run_path(str(ROOT / "examples" / "llm" / "assistant.py"))["agent"]
    async with InMemoryMesh() as mesh:
        mesh.add(agent)
        said = await mesh.client.request("assistant", "explain", topic="[[sim text='It scatters.']]")
        assert said == "It scatters."
        llm.behave(models=["another"])
        with pytest.raises(AgentFailed, match="gpt-4o-mini"):
            await mesh.client.request("assistant", "explain", topic="the sky")


def test_it_ends_with_whoever_started_it() -> None:
    code = (
        "import time; from weft.testing import SimulatedLLM; llm = SimulatedLLM().__enter__(); "
        "print(llm.url, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert starter.stdout is not None
        assert starter.stdout.readline().startswith("http://127.0.0.1:")
        (simulator,) = psutil.Process(starter.pid).children()
        os.kill(starter.pid, signal.SIGKILL)
        gone, _ = psutil.wait_procs([simulator], timeout=LIMIT)
        assert gone
    finally:
        starter.kill()
        starter.communicate()
