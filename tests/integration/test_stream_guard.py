"""The stream guard in a real Envoy, in front of a provider that breaks off."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from tests.integration.streaming_provider import (
    AGAIN,
    DONE,
    EVENTS,
    MODE,
    PROVIDER,
    StreamingProvider,
    event,
    streaming_provider,
)

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.native import MODULE, stream_guard
from weft.sidecar.envoy import envoy_program

LIMIT = 60.0
MAX_BODY = 100_000
BODY = b'{"stream":true}'
STREAMED = {"x-weft-llm-stream": "1"}
HOST = "127.0.0.1"
T = "type.googleapis.com/envoy."

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(stream_guard() is None, reason="there was no C compiler to build it"),
]


def _typed(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": T + kind, **fields}}


def _listener(name: str, filters: list[dict[str, Any]], host: dict[str, Any], **where: Any) -> dict[str, Any]:
    router = _typed("router", "extensions.filters.http.router.v3.Router")
    manager = _typed(
        "http",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], **host}]},
        http_filters=[*filters, router],
    )
    return {"name": name, "filter_chains": [{"filters": [manager]}], **where}


def _inner() -> dict[str, Any]:
    """Behind the guard: the second attempt is answered by provider `two`."""
    action = {"cluster": "provider", "timeout": "0s", "retry_policy": {"per_try_idle_timeout": "0.5s"}}
    first, second = (
        {
            "match": {
                "prefix": "/",
                "headers": [{"name": AGAIN, "present_match": True, "invert_match": not again}],
            },
            "route": action,
            "response_headers_to_add": [{"header": {"key": PROVIDER, "value": provider}}],
        }
        for again, provider in ((False, "one"), (True, "two"))
    )
    return _listener("streams", [], {"routes": [first, second]}, internal_listener={})


def _guarding() -> dict[str, Any]:
    text = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": f"streams {MAX_BODY}"}
    guard = _typed(
        "guard",
        "extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
        dynamic_module_config={"name": MODULE},
        filter_name="guard",
        filter_config=text,
        terminal_filter=True,
    )
    action = _typed("guard", "extensions.filters.http.composite.v3.ExecuteFilterAction", typed_config=guard)
    header = _typed("stream", "type.matcher.v3.HttpRequestHeaderMatchInput", header_name="x-weft-llm-stream")
    wanted = {"single_predicate": {"input": header, "value_match": {"exact": "1"}}}
    return _typed(
        "composite",
        "extensions.common.matching.v3.ExtensionWithMatcher",
        extension_config=_typed("composite", "extensions.filters.http.composite.v3.Composite"),
        xds_matcher={"matcher_list": {"matchers": [{"predicate": wanted, "on_match": {"action": action}}]}},
    )


def _cluster(name: str, address: dict[str, Any], version: str) -> dict[str, Any]:
    options = "extensions.upstreams.http.v3.HttpProtocolOptions"
    protocol = {"@type": T + options, "explicit_http_config": {version: {}}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        "typed_extension_protocol_options": {"envoy." + options: protocol},
    }


def _at(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _config(port: int, provider: int, admin: Path) -> dict[str, Any]:
    inner = {"envoy_internal_address": {"server_listener_name": "streams"}}
    direct = {"match": {"prefix": "/"}, "route": {"cluster": "provider", "timeout": "0s"}}
    return {
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "bootstrap_extensions": [
            _typed("internal", "extensions.bootstrap.internal_listener.v3.InternalListener")
        ],
        "static_resources": {
            "listeners": [
                _listener("door", [_guarding()], {"routes": [direct]}, address=_at(port)),
                _inner(),
            ],
            "clusters": [
                _cluster("provider", _at(provider), "http_protocol_options"),
                _cluster("streams", inner, "http2_protocol_options"),
            ],
        },
    }


class Door:
    """An Envoy with the guard, and the provider behind it."""

    def __init__(
        self, port: int, provider: StreamingProvider, admin: httpx.AsyncClient, envoy: Child
    ) -> None:
        self.url = f"http://{HOST}:{port}"
        self.port = port
        self.provider = provider
        self.client = httpx.AsyncClient(base_url=self.url, timeout=LIMIT)
        self._admin = admin
        self._envoy = envoy

    async def call(
        self, mode: str, *, path: str = "/v1/x", body: bytes = BODY, streamed: bool = True
    ) -> httpx.Response:
        """Have the provider answer as `mode` says."""
        headers = {MODE: mode, **(STREAMED if streamed else {})}
        return await self.client.post(path, headers=headers, content=body)

    async def open_calls(self) -> int:
        """How many are under way in Envoy, on either side."""
        assert self._envoy.running
        filters = {"filter": "(rq_active|upstream_rq_pending_active)$"}
        stats = (await self._admin.get("http://envoy/stats", params=filters)).text
        return sum(int(line.rpartition(" ")[2]) for line in stats.splitlines() if "admin" not in line)


@asynccontextmanager
async def _door(provider: StreamingProvider) -> AsyncIterator[Door]:
    library = stream_guard()
    assert library is not None
    with TemporaryDirectory(prefix="wt-") as name, reserve_port(HOST) as held:
        config, admin_socket, log = (Path(name, each) for each in ("envoy.json", "admin", "log"))
        config.write_text(json.dumps(_config(held.port, provider.port, admin_socket)))
        transport = httpx.AsyncHTTPTransport(uds=str(admin_socket))
        async with Guard(grace=0.1) as guard, httpx.AsyncClient(transport=transport) as admin:
            with log.open("wb") as out:
                envoy = await spawn(
                    [
                        *(envoy_program(), "--config-path", str(config), "--concurrency", "1"),
                        *("--disable-hot-restart", "--log-level", "warning"),
                    ],
                    guard=guard,
                    environ={"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(library.parent)},
                    stdout=out.fileno(),
                    stderr=out.fileno(),
                )
            door = Door(held.port, provider, admin, envoy)
            try:
                await _until(lambda: _is_up(envoy, admin, log))
                yield door
            finally:
                await door.client.aclose()
                await envoy.stop(0)


async def _is_up(envoy: Child, admin: httpx.AsyncClient, log: Path) -> bool:
    assert envoy.running, await asyncio.to_thread(log.read_text, errors="replace")
    with suppress(httpx.TransportError):
        return (await admin.get("http://envoy/ready")).status_code == httpx.codes.OK
    return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[Door]:
    async with streaming_provider() as provider, _door(provider) as opened:
        yield opened
        await _until(lambda: _none_open(opened))


async def _none_open(door: Door) -> bool:
    return await door.open_calls() == 0


def _error(answer: httpx.Response, *, behind: bytes) -> Any:
    """The error in the event that follows `behind`, which is all there is before it."""
    assert answer.content.startswith(behind)
    found = re.fullmatch(rb"data: (.*)\n\n", answer.content.removeprefix(behind))
    assert found is not None, answer.content
    return json.loads(found[1])["error"]


@pytest.mark.parametrize("mode", ["fin", "rst", "silent", "clean"])
async def test_an_answer_that_breaks_off_ends_with_an_event_that_says_so(door: Door, mode: str) -> None:
    answer = await door.call(mode)
    assert answer.status_code == 200
    assert _error(answer, behind=EVENTS) == {
        "message": "provider 'one' broke off the answer midway: it is incomplete",
        "type": "upstream_error",
        "param": None,
        "code": "stream_broken",
    }


async def test_wherever_an_answer_breaks_off_the_client_gets_whole_events(door: Door) -> None:
    whole = EVENTS + DONE
    for size in range(1, len(whole) + 1):
        answer = await door.call(f"fin={size} json")
        if size == len(whole):
            assert answer.content == whole
        elif size < len(event(0)):
            assert answer.json() == {"ok": True}, size  # nothing had been sent: once more
        else:
            events = whole[:size].rpartition(b"\n\n")[0] + b"\n\n"
            assert whole[:size].startswith(events)
            if whole[:size].endswith(b"data: [DONE]\n"):
                assert answer.content == whole + b"\n"
            else:
                assert _error(answer, behind=events)["code"] == "stream_broken", size


@pytest.mark.parametrize("piece", [1, 7])
async def test_a_complete_answer_arrives_as_it_is_however_it_is_cut(door: Door, piece: int) -> None:
    assert (await door.call(f"pieces={piece}")).content == EVENTS + DONE


@pytest.mark.parametrize("mode", ["fin=0", "rst=0", "silent=0", "clean=0", "fin=20"])
async def test_an_answer_that_breaks_off_before_its_first_event_is_asked_for_once_more(
    door: Door, mode: str
) -> None:
    answer = await door.call(f"{mode} complete")
    assert (answer.status_code, answer.content) == (200, EVENTS + DONE)
    assert answer.headers[PROVIDER] == "two"
    (first, body), (second, same_body) = door.provider.requests[-2:]
    assert body == same_body == BODY
    assert (first.get(AGAIN), second[AGAIN]) == (None, "one")


async def test_an_answer_that_breaks_off_twice_before_it_began_is_a_502(door: Door) -> None:
    answer = await door.call("fin=0 rst=0")
    assert (answer.status_code, answer.headers["x-weft-error"]) == (502, "stream_broken")
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("stream_broken", "upstream_error")
    assert error["message"].startswith("provider 'two' broke off before its answer began")


async def test_the_last_event_of_a_response_is_an_error_as_that_api_has_it(door: Door) -> None:
    answer = await door.call("fin", path="/v1/responses")
    kind, data = answer.content.removeprefix(EVENTS).decode().splitlines()[:2]
    assert kind == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error",
        "code": "stream_broken",
        "message": "provider 'one' broke off the answer midway: it is incomplete",
        "param": None,
        "sequence_number": 3,
    }


@pytest.mark.parametrize(("mode", "status"), [("json", 200), ("503", 503)])
async def test_what_is_no_stream_of_events_passes_as_it_is(door: Door, mode: str, status: int) -> None:
    guarded, direct = await door.call(mode), await door.call(mode, streamed=False)
    assert guarded.status_code == direct.status_code == status
    assert guarded.content == direct.content
    assert {*guarded.headers} - {*direct.headers} == {PROVIDER}


async def test_a_request_that_comes_in_pieces_reaches_the_provider_whole(door: Door) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for each in (b"x" * 50_000, b"y", b"z" * 10):
            yield each
            await asyncio.sleep(0)

    headers = {MODE: "fin", **STREAMED}
    answer = await door.client.post("/v1/x", headers=headers, content=pieces())
    assert _error(answer, behind=EVENTS)["code"] == "stream_broken"
    assert door.provider.requests[-1][1] == b"x" * 50_000 + b"y" + b"z" * 10


async def test_an_event_too_long_to_be_held_passes_as_it_is(door: Door) -> None:
    answer = await door.call(f"long={3 << 20}")
    assert answer.content == b"data: " + b"x" * (3 << 20) + b"\n\n" + DONE


async def test_a_request_larger_than_the_bound_is_refused_in_the_providers_format(door: Door) -> None:
    answer = await door.call("complete", body=b"x" * (MAX_BODY + 1))
    assert (answer.status_code, answer.headers["x-weft-error"]) == (413, "request_too_large")
    assert answer.json()["error"]["code"] == "request_too_large"


async def test_a_client_that_leaves_midway_frees_its_provider(door: Door) -> None:
    headers = {MODE: "silent", **STREAMED}
    async with door.client.stream("POST", "/v1/x", headers=headers, content=BODY) as answer:
        async for _ in answer.aiter_bytes():
            break
    await _until(lambda: _none_open(door))


_FLOOD = (
    b"POST /v1/x HTTP/1.1\r\nhost: x\r\nx-mode: flood\r\nx-weft-llm-stream: 1\r\n"
    b'content-length: 15\r\n\r\n{"stream":true}'
)


async def test_a_client_that_does_not_read_is_disconnected(door: Door) -> None:
    reader, writer = await asyncio.open_connection(HOST, door.port, limit=1024)
    writer.write(_FLOOD)
    await reader.readuntil(b"\r\n\r\n")
    await _until(lambda: _none_open(door))
    writer.close()


@pytest.mark.parametrize("mode", ["fin", "rst", "fin=0 rst=0"])
async def test_the_openai_package_raises_what_happened(door: Door, mode: str) -> None:
    got: list[str | None] = []

    async def answer(client: openai.AsyncOpenAI) -> None:
        async for chunk in await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            extra_headers={MODE: mode, **STREAMED},
        ):
            got.append(chunk.choices[0].delta.content)  # noqa: PERF401  # what came before it raises

    async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.APIError, match="broke off") as raised:
            await answer(client)
    assert raised.value.code == "stream_broken"
    assert got == ([] if "=0" in mode else ["word0 ", "word1 ", "word2 "])


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT):
        await until(condition)
