"""Calls to models through a whole mesh, by OpenAI's own library, which knows nothing of Weft."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from tests.e2e.llm_stage import Provider, Stage, provider, stage
from tests.e2e.meshes import eventually
from tests.e2e.messaging_mesh import document

from weft.local.llm_control import LlmApi
from weft.local.ports import free_port
from weft.native import stream_guard

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = f"sk-{secrets.token_hex(16)}"
HELLO: Any = [{"role": "user", "content": "Hello, how are you today?"}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@dataclass(frozen=True)
class Models:
    """The mesh, and its providers: the first takes any call, the second those that have its key."""

    stage: Stage
    first: Provider
    second: Provider


def pool(name: str, *providers: dict[str, Any], **spec: Any) -> str:
    return document("ModelPool", name, providers=providers, **spec)


def manifest(first: Provider, second: Provider) -> list[str]:
    one = {"name": "first", "url": first.url}
    impatient = {"firstToken": "4s", "timeout": "4s"}
    other = {
        "name": "second",
        "url": second.url,
        "order": 1,
        "model": "vendor/other-2",
        "key": {"secret": "models", "key": "second"},
    }
    nowhere = {"name": "nowhere", "url": f"http://127.0.0.1:{free_port()}/v1"}
    priced = {**one, "prices": {"input": 1000, "output": 1000}}
    budget = {"period": "day", "tokens": 1000}
    by_team = {"tenantHeader": "x-team"}
    return [
        document("Secret", "models", data={"second": KEY}),
        pool("plain", one),
        pool("chat", {**one, "model": "own-1"}, other, models=["chat", "vendor/chat:1"]),
        pool("keyed", {**other, "order": 0}),
        pool("single", {**one, "limits": {"concurrency": 1}}),
        pool("narrow", {**one, "limits": {"contextTokens": 1000}}, maxBodyBytes=8192),
        pool("waiting", {**one, "limits": {"concurrency": 1}}, scheduling={"maxWaiting": 1}),
        pool("hidden", one),
        document("AccessPolicy", "writers-may-not", effect="deny", to=[{"pool": "hidden"}]),
        pool("gone", nowhere),
        *(pool(f"pair-{each}", one, other) for each in OUTAGES if each not in SILENT),
        *(pool(f"pair-{each}", {**one, **impatient}, {**other, **impatient}) for each in SILENT),
        pool("pair-refused", nowhere, other),
        pool("alone", {**one, **impatient, "limits": {"concurrency": 1}}),
        pool("spared", {**one, "limits": {"concurrency": 9}}),
        pool("breaking", {**one, "limits": {"concurrency": 1}}),
        *(pool(f"paid-{each}", priced, scheduling=by_team) for each in ("teams", "keys", "contexts")),
        document("Budget", "teams", scope="tenant", pools=["paid-teams"], **budget),
        document("Budget", "keys", scope="key", pools=["paid-keys"], **budget),
        document("Budget", "contexts", scope="context", pools=["paid-contexts"], period="total", usd=1.0),
    ]


OUTAGES: dict[str, dict[str, Any]] = {
    "unavailable": {"outage": "error", "failureStatus": 503},
    "limited": {"outage": "error", "failureStatus": 429},
    "html": {"outage": "html"},
    "hanging": {"outage": "hang"},
    "closing": {"outage": "close"},
    "slow": {"firstToken": "1h"},
}

SILENT = ("hanging", "slow")
"""Those that show by nothing but that time goes by."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def models(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Models]:
    async with AsyncExitStack() as ends:
        first = await ends.enter_async_context(provider())
        second = await ends.enter_async_context(provider({"right": KEY}))
        directory = tmp_path_factory.mktemp("llm")
        running = await ends.enter_async_context(stage(directory, manifest(first, second), ["writer-1"]))
        yield Models(running, first, second)


@pytest_asyncio.fixture(loop_scope="module")
async def client(models: Models) -> AsyncIterator[AsyncOpenAI]:
    models.first.behave()
    models.second.behave()
    async with models.stage.client("writer-1") as client:
        yield client


async def test_what_is_asked_of_a_model_is_answered(models: Models, client: AsyncOpenAI) -> None:
    create: Any = client.chat.completions.create
    whole = await create(model="plain", messages=HELLO, n=2)
    assert [len(each.message.content or "") > 0 for each in whole.choices] == [True, True]
    tools = await create(model="plain", messages=HELLO, tools=[TOOL], tool_choice="required")
    (call,) = tools.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert (await client.completions.create(model="plain", prompt="Once")).choices[0].text
    assert (await client.responses.create(model="plain", input="Once")).output_text
    assert len((await client.embeddings.create(model="plain", input=["one", "two"])).data) == 2


async def test_streams_tell_their_usage_to_those_who_ask(models: Models, client: AsyncOpenAI) -> None:
    create: Any = client.chat.completions.create
    unasked = [each async for each in await create(model="plain", messages=HELLO, stream=True)]
    options: Any = {"include_usage": True}
    asked = [
        each
        async for each in await create(model="plain", messages=HELLO, stream=True, stream_options=options)
    ]
    assert all(each.choices and each.usage is None for each in unasked)
    assert not asked[-1].choices
    assert asked[-1].usage is not None
    said = [
        "".join(each.choices[0].delta.content or "" for each in stream if each.choices)
        for stream in (unasked, asked)
    ]
    assert all(said)
    events = [
        each.type async for each in await client.responses.create(model="plain", input="Hi", stream=True)
    ]
    assert events[-1] == "response.completed"


async def test_the_models_that_may_be_used_are_listed(client: AsyncOpenAI) -> None:
    listed = [each.id async for each in client.models.list()]
    assert {"plain", "chat", "vendor/chat:1"} <= {*listed}
    assert "hidden" not in listed
    assert (await client.models.retrieve("vendor/chat:1")).id == "vendor/chat:1"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("none")


async def test_a_pool_that_a_policy_denies_is_refused_by_its_name(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="writers-may-not") as caught:
        await client.chat.completions.create(model="hidden", messages=HELLO)
    assert caught.value.code == "denied"
    assert caught.value.response.headers["x-weft-policy"] == "accesspolicy/writers-may-not"


async def test_bytes_that_weft_does_not_know_pass_untouched(models: Models) -> None:
    sent = (
        '{ "unknown":1e400,"big":123456789012345678901234567890, "model" : "plain","a":{"model":"b"},\n'
        '"messages":[{"role":"user","content":[{"type":"text","text":"h\\u00e9\\/ \\"model\\":\\"x\\""},'
        '{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],"ä":"ö",'
        '"twice":1,"twice":2 }'
    )
    async with models.stage.raw("writer-1") as http:
        await http.post("/chat/completions?a=b", content=sent.encode(), headers={"x-own": "kept"})
    seen = (await models.first.requests())[-1]
    assert (seen["body"], seen["query"]) == (sent, "a=b")
    assert seen["headers"]["x-own"] == "kept"


async def test_each_provider_gets_its_own_model_and_key(models: Models, client: AsyncOpenAI) -> None:
    create: Any = client.chat.completions.with_raw_response.create
    extra: Any = {"extra_headers": {"x-weft-context": "c", "x-weft-llm-cluster": "none", "cookie": "a=b"}}
    answer = await create(model="vendor/chat:1", messages=HELLO, **extra)
    assert answer.headers["x-weft-llm-provider"] == "first"
    seen = (await models.first.requests())[-1]
    assert json.loads(seen["body"])["model"] == "own-1"
    assert not [
        each for each in seen["headers"] if each.startswith("x-weft") or each in ("authorization", "cookie")
    ]
    models.first.behave(outage="error", failureStatus=503)
    answer = await create(model="vendor/chat:1", messages=HELLO, **extra)
    assert answer.headers["x-weft-llm-provider"] == "second"
    seen = (await models.second.requests())[-1]
    assert json.loads(seen["body"]) == {"model": "vendor/other-2", "messages": HELLO}
    assert seen["headers"]["host"] == f"127.0.0.1:{models.second.port}"
    assert not [each for each in seen["headers"] if each.startswith("x-weft") or each == "cookie"]
    assert models.second.stats["byKey"]["right"]["requests"]


@pytest.mark.parametrize("outage", [*OUTAGES, "refused"])
async def test_the_next_provider_answers_where_one_is_out(
    models: Models, client: AsyncOpenAI, outage: str
) -> None:
    models.first.behave(**OUTAGES.get(outage, {}))
    create: Any = client.chat.completions.with_raw_response.create
    # What is silent is given up after a while only where it is a stream.
    kinds = [True] if outage == "slow" else [False, True]
    answers = [await create(model=f"pair-{outage}", messages=HELLO, stream=each) for each in kinds]
    assert {each.headers["x-weft-llm-provider"] for each in answers} == {"second"}


async def test_a_key_is_nowhere_but_at_its_provider(models: Models, client: AsyncOpenAI) -> None:
    await client.chat.completions.create(model="keyed", messages=HELLO)
    stage = models.stage
    shown = [stage.logs, await stage.envoy_shows("writer-1")]
    commands = (("get", "secrets"), ("get", "modelpools"), ("llm", "pools"))
    shown += [await stage.weft(*each, "--output", "json") for each in commands]
    assert not [each for each in shown if KEY in each]
    assert '"second"' in shown[1]
    kept = [each for each in stage.core.directory.rglob("*") if each.is_file() and not each.is_symlink()]
    assert not [each for each in kept if KEY.encode() in each.read_bytes()]


async def test_a_client_that_leaves_makes_room_at_once(models: Models, client: AsyncOpenAI) -> None:
    models.first.behave(tokensPerSecond=1, answerTokens=1000)
    cancelled = models.first.stats["cancelled"]
    create: Any = client.chat.completions.create
    for _ in range(3):
        stream = await create(model="single", messages=HELLO, stream=True)
        await anext(aiter(stream))
        await stream.close()
    waiting = asyncio.create_task(create(model="single", messages=HELLO))
    await eventually(lambda: _seen(models.first, cancelled + 3, "cancelled"), lambda: str(models.first.stats))
    await eventually(lambda: _seen(models.first, 1, "inFlight"), lambda: str(models.first.stats))
    waiting.cancel()
    models.first.behave()
    assert (await create(model="single", messages=HELLO)).usage is not None


async def _seen(by: Provider, number: int, what: str) -> bool:
    return bool(by.stats[what] == number)


CHAT = "/chat/completions"
LONG = "x" * 20_000
BAD = {
    "no body": (CHAT, b"", {}, 400, "invalid_request"),
    "no JSON": (CHAT, b"hello", {}, 400, "invalid_request"),
    "cut off": (CHAT, b'{"model":"plain","messages":[', {}, 400, "invalid_request"),
    "an array": (CHAT, b'[{"model":"plain"}]', {}, 400, "invalid_request"),
    "no model": (CHAT, b'{"messages":[]}', {}, 400, "invalid_request"),
    "two models": (CHAT, b'{"model":"plain","model":"hidden"}', {}, 400, "invalid_request"),
    "a number for a model": (CHAT, b'{"model":7}', {}, 400, "invalid_request"),
    "an unknown model": (CHAT, b'{"model":"none"}', {}, 404, "model_not_found"),
    "an unknown path": ("/audio/speech", b'{"model":"plain"}', {}, 404, "not_found"),
    "a body too large for the pool": (
        CHAT,
        b'{"model":"narrow","prompt":"%s"}' % LONG.encode(),
        {},
        413,
        "request_too_large",
    ),
    "a body too large for any": (
        CHAT,
        b'{"model":"plain"%s}' % (b" " * 17 * 2**20),
        {},
        413,
        "request_too_large",
    ),
    "an answer beyond the context": (
        CHAT,
        b'{"model":"narrow","messages":[],"max_tokens":5000}',
        {},
        400,
        "context_length_exceeded",
    ),
    "a deadline that has passed": (CHAT, b"{MODEL}", {"x-weft-deadline": "1000"}, 504, "deadline_exceeded"),
    "a deadline that is none": (CHAT, b"{MODEL}", {"x-weft-deadline": "soon"}, 400, "invalid_request"),
    "a budget that is none": (CHAT, b"{MODEL}", {"x-weft-budget": "lots"}, 400, "invalid_request"),
    "a class that is none": (CHAT, b"{MODEL}", {"x-weft-class": "first"}, 400, "invalid_request"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_bad_input_gets_an_error_and_reaches_no_provider(
    models: Models, client: AsyncOpenAI, kind: str
) -> None:
    path, body, headers, status, code = BAD[kind]
    before = models.first.stats["requests"]
    content = body.replace(b"{MODEL}", b'{"model":"single","messages":[{"role":"user","content":"hi"}]}')
    async with models.stage.raw("writer-1") as http:
        answer = await http.post(path, content=content, headers=headers)
    assert (answer.status_code, answer.headers.get("x-weft-error")) == (status, code), answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert {*error} == {"message", "type", "param", "code"}
    assert models.first.stats["requests"] == before


ALONE: dict[str, tuple[dict[str, Any], int, str]] = {
    "html": ({"outage": "html"}, 502, "provider_error"),
    "hanging": ({"outage": "hang"}, 504, "provider_timeout"),
    "closing": ({"outage": "close"}, 502, "provider_interrupted"),
}


async def test_without_another_provider_errors_say_what_happened_and_the_next_call_is_served(
    models: Models, client: AsyncOpenAI
) -> None:
    for outage, status, code in ALONE.values():
        models.first.behave(**outage)
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="alone", messages=HELLO)
        assert (caught.value.status_code, caught.value.code) == (status, code)
        models.first.behave()
        assert (await client.chat.completions.create(model="alone", messages=HELLO)).usage
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="gone", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (503, "no_provider")


@pytest.mark.skipif(stream_guard() is None, reason="there was no C compiler to build the stream guard")
async def test_a_stream_that_breaks_off_ends_with_an_error(models: Models, client: AsyncOpenAI) -> None:
    create: Any = client.chat.completions.create
    wish = [{"role": "user", "content": "[[sim break-after=3]]"}]
    said = []

    async def read() -> None:
        async for each in await create(model="breaking", messages=wish, stream=True):
            said.append(each)  # noqa: PERF401 -- what came before the error counts

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert len(said) >= 3
    assert caught.value.code == "stream_broken"
    assert (await create(model="breaking", messages=HELLO)).usage


async def test_a_provider_that_fails_again_and_again_is_spared_until_it_answers(
    models: Models, client: AsyncOpenAI
) -> None:
    models.first.behave(outage="error", failureStatus=503)
    create: Any = client.chat.completions.with_raw_response.create
    for _ in range(5):
        await create(model="pair-unavailable", messages=HELLO)

    def health(pool: dict[str, Any]) -> str:
        return str(next(each["health"] for each in pool["providers"] if each["name"] == "first"))

    await models.stage.pool_becomes("pair-unavailable", lambda pool: health(pool) != "healthy")
    failed = models.first.stats["failed"]
    answer = await create(model="pair-unavailable", messages=HELLO)
    assert answer.headers["x-weft-llm-provider"] == "second"
    assert models.first.stats["failed"] == failed
    models.first.behave()

    async def back() -> bool:
        answer = await create(model="pair-unavailable", messages=HELLO)
        return bool(answer.headers["x-weft-llm-provider"] == "first")

    await eventually(back, lambda: "it never got a call again")


async def test_more_do_not_wait_than_may(models: Models, client: AsyncOpenAI) -> None:
    models.first.behave(outage="hang")
    create: Any = client.chat.completions.create
    calls = [asyncio.create_task(create(model="waiting", messages=HELLO)) for _ in range(2)]
    await models.stage.pool_becomes("waiting", lambda pool: pool["callsWaiting"] == 1)
    with pytest.raises(openai.RateLimitError) as caught:
        await create(model="waiting", messages=HELLO)
    assert caught.value.code == "queue_full"
    assert int(caught.value.response.headers["retry-after"]) > 0
    for each in calls:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    models.first.behave()
    assert (await create(model="waiting", messages=HELLO)).usage


@pytest.mark.parametrize(
    ("header", "name", "budget"),
    [("x-team", "red", "teams"), ("x-weft-key", "k-1", "keys"), ("x-weft-context", "c-1", "contexts")],
)
async def test_a_budget_holds_among_twenty_callers(
    models: Models, client: AsyncOpenAI, header: str, name: str, budget: str
) -> None:
    models.first.reset()
    models.first.behave(answerTokens=20, firstToken="20ms")
    refused: list[openai.RateLimitError] = []

    async def caller() -> None:
        while True:
            try:
                await client.chat.completions.create(
                    model=f"paid-{budget}",
                    messages=HELLO,
                    max_tokens=30,
                    extra_headers={header: name},
                )
            except openai.RateLimitError as error:
                refused.append(error)
                return

    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(caller())
    assert {each.code for each in refused} == {"budget_exceeded"}
    assert all(budget in each.message and name in each.message for each in refused)
    assert {each.response.headers["x-should-retry"] for each in refused} == {"false"}
    used = models.first.stats["promptTokens"] + models.first.stats["completionTokens"]
    assert 400 < used <= 1000
    shown = await _spent(models.stage, budget, name, used)
    assert shown["spentUsd"] == pytest.approx(used / 1000)


async def test_what_failed_or_was_left_is_not_charged(models: Models, client: AsyncOpenAI) -> None:
    create: Any = client.chat.completions.create
    headers = {"x-weft-key": "k-2"}
    models.first.behave(outage="error", failureStatus=400)
    with pytest.raises(openai.BadRequestError):
        await create(model="paid-keys", messages=HELLO, max_tokens=30, extra_headers=headers)
    models.first.behave(outage="hang")
    call = asyncio.create_task(
        create(model="paid-keys", messages=HELLO, max_tokens=30, extra_headers=headers)
    )
    await eventually(lambda: _seen(models.first, 1, "inFlight"), lambda: str(models.first.stats))
    call.cancel()
    await _spent(models.stage, "keys", "k-2", 0)


async def test_a_call_tree_spends_no_more_than_it_says(models: Models, client: AsyncOpenAI) -> None:
    create: Any = client.chat.completions.create
    trace = secrets.token_hex(16)

    async def call(trace: str) -> None:
        headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01", "x-weft-budget": "200 tokens"}
        await create(model="plain", messages=HELLO, max_tokens=20, extra_headers=headers)

    async def spend() -> None:
        for _ in range(20):
            await call(trace)

    before = models.first.stats["promptTokens"] + models.first.stats["completionTokens"]
    with pytest.raises(openai.RateLimitError, match=trace):
        await spend()
    used = models.first.stats["promptTokens"] + models.first.stats["completionTokens"] - before
    assert 100 < used <= 200
    await call(secrets.token_hex(16))


async def _spent(stage: Stage, budget: str, value: str, tokens: int) -> dict[str, Any]:
    """An account once so much was spent of it, and nothing is set aside."""
    found: dict[str, Any] = {}

    async def settled() -> bool:
        for each in await stage.asked(LlmApi.budgets):
            if (each["budget"], each["value"]) == (budget, value):
                found.update(each)
        return bool(found) and (found["spentTokens"], found["setAsideTokens"]) == (tokens, 0)

    await eventually(settled, lambda: f"{tokens} were spent, but {found} is said")
    return found


async def test_a_provider_that_asks_to_be_spared_is(models: Models, client: AsyncOpenAI) -> None:
    create: Any = client.chat.completions.create
    with pytest.raises(openai.RateLimitError) as caught:
        await create(
            model="spared", messages=[{"role": "user", "content": "[[sim fail=429 retry-after=5s]]"}]
        )
    assert caught.value.code == "rate_limit_exceeded"
    pool = await models.stage.pool_becomes("spared", lambda pool: pool["providers"][0]["until"] is not None)
    assert (await create(model="spared", messages=HELLO)).usage
    assert time.time() >= pool["providers"][0]["until"]


async def test_the_commands_say_what_happened_and_nothing_is_left_under_way(models: Models) -> None:
    stage = models.stage
    pools, usage = await asyncio.gather(
        stage.json("llm", "pools"), stage.weft("llm", "usage", "--by", "tenant,model,provider", "--csv")
    )
    assert {each["name"]: each["underWay"] for each in pools if each["underWay"]} == {}
    assert {"plain", "chat", "paid-teams"} <= {each["name"] for each in pools}
    rows = list(csv.DictReader(io.StringIO(usage)))
    asked = {(each["tenant"], each["model"]): each["provider"] for each in rows}
    assert asked["writer", "keyed"] == "second"
    assert asked["red", "paid-teams"] == "first"
