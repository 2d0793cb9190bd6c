"""What a Route and a TrafficPolicy do to calls, as the agents and their callers see it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.e2e.crew import Crew, problem, tally
from tests.e2e.meshes import eventually

from weft.kubernetes.agent_service import AgentService
from weft.kubernetes.http_route_translation import translated_routes
from weft.model.yaml_tree import dump

WORKER = "http://worker.mesh"
STREAM = {"accept": "text/event-stream"}


@pytest.fixture
async def client(crew: Crew) -> AsyncIterator[httpx.AsyncClient]:
    async with crew.client() as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/match/exact", {}),
        ("GET", "/match/v42", {}),
        ("PUT", "/match/method/any", {}),
        ("GET", "/match/header", {"x-canary": "yes"}),
        ("GET", "/match/header", {"x-user": "test-1", "x-debug": "1"}),
    ],
)
async def test_calls_that_match_a_rule_go_where_it_says(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> None:
    for _ in range(6):
        response = await client.request(method, WORKER + path, headers=headers)
        assert response.json()["instance"] == "w-3"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/match/exactly", {}),
        ("GET", "/match/v42/more", {}),
        ("POST", "/match/method/any", {}),
        ("GET", "/match/header", {"x-canary": "no"}),
        ("GET", "/match/header", {"x-user": "test-1"}),
    ],
)
async def test_calls_that_match_only_a_part_of_a_rule_do_not(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> None:
    found = {
        (await client.request(method, WORKER + path, headers=headers)).json()["instance"] for _ in range(6)
    }
    assert found == {"w-1", "w-2", "w-3"}


async def test_a_split_divides_calls_by_version_as_its_weights_say(client: httpx.AsyncClient) -> None:
    found = await tally(client, f"{WORKER}/split", 500, at_once=4)
    assert 100 - 48 < found["w-3"] < 100 + 48  # sigma is 8.9
    assert found["w-1"] + found["w-2"] + found["w-3"] == 500


async def test_a_split_leads_to_another_type_and_a_weight_of_nothing_to_nobody(
    client: httpx.AsyncClient,
) -> None:
    assert await tally(client, f"{WORKER}/to-shadow", 10) == {"s-1": 10}


async def test_a_mirror_gets_copies_and_its_answers_are_thrown_away(
    crew: Crew, client: httpx.AsyncClient
) -> None:
    shadow = crew.members["s-1"]
    with shadow.set("always", "500"):
        found = await tally(client, f"{WORKER}/mirror/failing", 6)
    assert found.keys() == {"w-1", "w-2", "w-3"}
    await tally(client, f"{WORKER}/mirror/copied", 6)

    async def copied() -> bool:
        return shadow.seen().count("GET /mirror/copied") == 6

    await eventually(copied, lambda: f"the mirror saw only {shadow.seen()}")


async def test_headers_are_changed_both_ways(client: httpx.AsyncClient) -> None:
    sent = {"x-model": "large", "x-tag": "first", "x-secret": "hunter2"}
    response = await client.get(f"{WORKER}/headers", headers=sent)
    seen = response.json()["headers"]
    assert seen["x-model"] == "100% small"
    assert seen["x-tag"].replace(" ", "") in {"first,second", "second"}
    assert "x-secret" not in seen
    assert response.headers["x-served-by"] == "weft"
    assert "x-internal" not in response.headers


async def test_a_call_that_takes_too_long_times_out(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{WORKER}/slow/5")
    assert problem(response) == (504, "timed-out")
    assert "worker.mesh" in response.json()["detail"]


async def test_a_stream_may_last_longer_than_the_timeout(client: httpx.AsyncClient) -> None:
    response = await client.get("http://brief.cap.mesh/drip/4/0.3", headers=STREAM)
    assert response.text.count("data:") == 4


async def test_a_stream_that_falls_silent_is_cut(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("http://brief.cap.mesh/drip/2/30", headers=STREAM)


async def test_a_stream_that_does_not_begin_times_out(client: httpx.AsyncClient) -> None:
    response = await client.get("http://brief.cap.mesh/slow/30", headers=STREAM)
    assert problem(response) == (504, "timed-out")


async def test_a_plain_call_has_no_more_than_the_timeout_of_its_policy(client: httpx.AsyncClient) -> None:
    assert problem(await client.get("http://brief.cap.mesh/slow/30")) == (504, "timed-out")


async def test_a_caller_cannot_lift_the_timeout(client: httpx.AsyncClient) -> None:
    headers = {"x-envoy-upstream-rq-timeout-ms": "60000"}
    assert problem(await client.get("http://brief.cap.mesh/slow/30", headers=headers)) == (504, "timed-out")


async def test_an_injected_fault_says_that_it_is_one(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{WORKER}/abort")
    assert problem(response) == (418, "agent-failed")
    assert "injected" in response.json()["detail"]


async def test_an_injected_fault_strikes_its_share_of_the_calls(client: httpx.AsyncClient) -> None:
    statuses = [(await client.get(f"{WORKER}/half")).status_code for _ in range(200)]
    assert {*statuses} == {200, 503}
    assert 100 - 40 < statuses.count(503) < 100 + 40  # sigma is 7.1


async def test_an_injected_delay_holds_a_call_back(client: httpx.AsyncClient) -> None:
    started = time.monotonic()
    assert (await client.get(f"{WORKER}/delay")).status_code == 200
    assert time.monotonic() - started >= 0.7


async def test_a_refusal_is_made_good_by_another_instance(crew: Crew, client: httpx.AsyncClient) -> None:
    with crew.members["w-1"].set("always", "refused"):
        assert (await tally(client, "http://evenly.cap.mesh/", 12)).keys() == {"w-2", "w-3"}


async def test_without_retries_a_refusal_is_the_answer(crew: Crew, client: httpx.AsyncClient) -> None:
    with crew.members["w-1"].set("always", "refused"):
        statuses = {(await client.get("http://once.cap.mesh/")).status_code for _ in range(12)}
    assert statuses == {200, 503}


async def test_a_refusal_that_nobody_makes_good_is_passed_on(crew: Crew, client: httpx.AsyncClient) -> None:
    w1, w2, w3 = (crew.members[name] for name in ("w-1", "w-2", "w-3"))
    with w1.set("always", "refused"), w2.set("always", "refused"), w3.set("always", "refused"):
        response = await client.get("http://evenly.cap.mesh/")
    assert response.status_code == 503
    assert response.headers["x-weft-refused"] == "busy"


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "k-1"}])
async def test_an_agents_own_error_passes_through_unchanged_and_is_not_repeated(
    crew: Crew, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    path = f"/status/500?{len(headers)}"
    response = await client.get(f"{WORKER}{path}", headers=headers)
    assert response.status_code == 500
    assert response.json()["path"] == path
    assert "x-weft-error" not in response.headers
    assert sum(each.seen().count(f"GET {path}") for each in crew.members.values()) == 1


async def test_a_gateway_error_of_an_agent_is_repeated_only_with_a_key(
    crew: Crew, client: httpx.AsyncClient
) -> None:
    for path, headers, times in (("/status/502?0", {}, 1), ("/status/502?1", {"idempotency-key": "k-1"}, 4)):
        response = await client.get(f"{WORKER}{path}", headers=headers)
        assert response.status_code == 502
        assert response.json()["path"] == path
        assert sum(each.seen().count(f"GET {path}") for each in crew.members.values()) == times


SERVICES = [
    AgentService("default", "front", "front"),
    AgentService("default", "worker", "worker"),
    AgentService("default", "worker-next", "worker", "2"),
]
HEADER = {"path": {"value": "/"}, "method": "GET", "headers": [{"name": "x", "value": "y"}]}
HTTP_ROUTE = {
    "metadata": {"name": "front", "namespace": "default"},
    "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "name": "front"}],
        "rules": [
            {"matches": [{"path": {"value": "/v2"}}], "backendRefs": [{"name": "worker-next"}]},
            {"matches": [{"path": {"value": "/v2/old"}}], "backendRefs": [{"name": "absent"}]},
            {"matches": [HEADER], "backendRefs": [{"name": "worker"}, {"name": "absent", "weight": 0}]},
        ],
    },
}


async def test_an_http_route_of_the_gateway_api_leads_calls_as_it_would_elsewhere(
    crew: Crew, client: httpx.AsyncClient
) -> None:
    front = "http://front.mesh"
    spec = translated_routes([HTTP_ROUTE], SERVICES).routes["front"].spec
    route = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
    declared = [
        {"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": {"name": "front"}, "spec": each}
        for kind, each in (("Agent", {}), ("Route", route))
    ]

    async def is_there() -> bool:
        return (await client.get(f"{front}/v2")).status_code == 200

    async with crew.core.api() as api:
        await api.apply(dump(declared), "test.yaml")
        try:
            await eventually(is_there, lambda: "the Route has no effect")
            for path in ("/v2", "/v2/", "/v2/any", "/v2?old", "/v2/older"):
                assert (await client.get(front + path)).json()["instance"] == "w-3", path
            for path, status in (("/v2/old", 500), ("/v2/old/er", 500), ("/v20", 404), ("/", 404)):
                assert (await client.get(front + path)).status_code == status, path
            answer = await client.get(front, headers={"x": "y"})
            assert answer.json()["instance"] in {"w-1", "w-2", "w-3"}
            assert (await client.post(front, headers={"x": "y"})).status_code == 404
        finally:
            await api.delete("Route", "front")
            await api.delete("Agent", "front")
