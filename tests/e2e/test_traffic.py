"""The mesh's traffic, as the control plane and every sidecar tell it: exactly what was sent."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.binaries import WEFT
from tests.e2e.meshes import RunningMesh, eventually, running_mesh
from tests.hosting import hosted
from tests.integration.sidecar_process import LIMIT

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANIFEST = """
apiVersion: weft.dev/v1alpha1
kind: Agent
metadata: {{name: worker}}
spec:
  version: "1.5"
  run:
    command: [{python}, foreign_agent.py, {state}]
    replicas: 2
---
apiVersion: weft.dev/v1alpha1
kind: Agent
metadata: {{name: planner}}
spec:
  run:
    command: [{python}, foreign_agent.py, {state}]
---
apiVersion: weft.dev/v1alpha1
kind: Route
metadata: {{name: worker}}
spec:
  destination: {{type: worker}}
  rules:
  - {{name: asked, match: [{{path: {{prefix: /asked}}}}]}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningMesh]:
    state = tmp_path_factory.mktemp("traffic")
    manifest = MANIFEST.format(python=sys.executable, state=state)
    async with hosted(running_mesh(manifest)) as running:
        yield running


@dataclass
class Caller:
    """Who calls, and what it was answered so far."""

    name: str
    """In figures."""
    sidecar: str
    """In Prometheus's targets."""
    client: httpx.AsyncClient

    async def calls(self, url: str, times: int, **options: Any) -> Counter[int]:
        """Call so often, four at a time; how often which status came (0: none)."""
        found: Counter[int] = Counter()
        left = iter(range(times))

        async def some() -> None:
            for _ in left:
                try:
                    found[(await self.client.get(url, **options)).status_code] += 1
                except httpx.TransportError:
                    found[0] += 1

        await asyncio.gather(*(some() for _ in range(4)))
        return found


def caller(mesh: RunningMesh, name: str, sidecar: str, proxy: str) -> Caller:
    client = httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=LIMIT)
    return Caller(name, sidecar, client)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(mesh: RunningMesh) -> AsyncIterator[Caller]:
    found = caller(mesh, "operator/local", "caller.door", mesh.local.proxy_url)
    yield found
    await found.client.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def planner(mesh: RunningMesh) -> AsyncIterator[Caller]:
    proxy = mesh.program("planner-1").environ()["WEFT_PROXY"]
    found = caller(mesh, "planner", "planner.planner-1", proxy)
    yield found
    await found.client.aclose()


async def edges(mesh: RunningMesh, who: Caller) -> dict[tuple[str, str], dict[str, Any]]:
    """What the API says of a caller, by destination and route."""
    answer = await mesh.api.ask("GET", "/v1/traffic?window=900")
    return {
        (each["destination"], each["route"]): each for each in answer["edges"] if each["caller"] == who.name
    }


async def totals(mesh: RunningMesh, who: Caller) -> Counter[tuple[str, str]]:
    return Counter({key: each["total"] for key, each in (await edges(mesh, who)).items()})


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(mesh: RunningMesh, sidecar: str, role: str = "sidecar") -> Samples:
    """What Prometheus would read of a sidecar, found as Prometheus finds it."""
    groups: list[Mapping[str, Any]] = await mesh.api.ask("GET", "/v1/prometheus/sd")
    [group] = [
        each for each in groups if each["labels"]["role"] == role and each["labels"]["instance"] == sidecar
    ]
    path = group["labels"].get("__metrics_path__", "/metrics")
    async with httpx.AsyncClient(trust_env=False, timeout=LIMIT) as client:
        answer = await client.get(f"http://{group['targets'][0]}{path}")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def added_up(samples: Samples, name: str, by: str, **where: str) -> Counter[str]:
    """The sums of a metric by one label, where others have a value."""
    found: Counter[str] = Counter()
    for (known, labels), value in samples.items():
        if known == name and {*where.items()} <= labels:
            found[dict(labels)[by]] += int(value)
    return found


async def test_what_is_told_is_what_was_sent(mesh: RunningMesh, door: Caller, planner: Caller) -> None:
    assert await door.calls("http://worker.mesh/", 60) == {200: 60}
    assert await door.calls("http://worker.mesh/status/500", 7) == {500: 7}
    assert await door.calls("http://worker.mesh/status/404", 5) == {404: 5}
    assert await door.calls("http://worker.mesh/status/429", 3) == {429: 3}
    assert await door.calls("http://worker.mesh/asked", 11) == {200: 11}
    assert await door.calls("http://nobody.mesh/", 2) == {404: 2}
    assert await door.calls("http://worker.mesh/slow/20", 2, timeout=0.3) == {0: 2}
    assert await planner.calls("http://worker.mesh/", 40) == {200: 40}
    assert await planner.calls("http://worker.mesh/status/503", 4) == {503: 4}

    expected = {("worker", "default"): 77, ("worker", "asked"): 11, ("unknown", "unknown"): 2}
    await eventually(lambda: _are(mesh, door, expected), lambda: "the door's calls were not told")
    await eventually(
        lambda: _are(mesh, planner, {("worker", "default"): 44}), lambda: "the planner's were not"
    )

    found = await edges(mesh, door)
    edge = found["worker", "default"]
    told = (edge["kind"], edge["version"], edge["calls"], edge["errors"], edge["refused"], edge["abandoned"])
    assert told == ("agent", "1.5", 77, 7, 3, 2)
    assert (edge["total"], edge["totalErrors"]) == (77, 7)
    assert (await edges(mesh, planner))["worker", "default"]["errors"] == 4
    await eventually(lambda: _timed(mesh, door), lambda: "there are no percentiles")

    samples = await scraped(mesh, door.sidecar)
    counted = added_up(samples, "weft_requests_total", "code", destination="worker", caller=door.name)
    assert counted == {"200": 71, "500": 7, "404": 5, "429": 3, "0": 2}
    assert added_up(samples, "weft_requests_total", "route", destination="worker") == {
        "default": 77,
        "asked": 11,
    }
    count = added_up(samples, "weft_request_duration_seconds_count", "destination")
    assert count == {"worker": 88, "unknown": 2}
    beyond = added_up(
        samples, "weft_request_duration_seconds_bucket", "le", destination="worker", route="default"
    )
    assert beyond["+Inf"] == 77
    assert beyond["0.25"] <= 75  # two callers waited for longer than that
    sent = await scraped(mesh, planner.sidecar)
    assert added_up(sent, "weft_requests_total", "code", destination="worker") == {"200": 40, "503": 4}
    assert sent["weft_agent_healthy", frozenset()] == 1


async def _are(mesh: RunningMesh, who: Caller, expected: Mapping[tuple[str, str], int]) -> bool:
    return await totals(mesh, who) == expected


async def _timed(mesh: RunningMesh, who: Caller) -> bool:
    edge = (await edges(mesh, who))["worker", "default"]
    p50, p90, p99 = (edge[each] for each in ("p50", "p90", "p99"))
    return p50 is not None and bool(0 < p50 <= p90 <= p99 and p99 > 0.25)


async def test_a_series_adds_up_to_what_was_sent(mesh: RunningMesh, planner: Caller) -> None:
    before = (await totals(mesh, planner))["worker", "default"]
    assert await planner.calls("http://worker.mesh/", 20) == {200: 20}

    async def told() -> bool:
        answer = await mesh.api.ask("GET", "/v1/traffic/series?destination=worker&caller=planner&seconds=900")
        return bool(sum(at[1] for each in answer["series"] for at in each["points"]) == before + 20)

    await eventually(told, lambda: "the series has other calls than were made")
    answer = await mesh.api.ask("GET", "/v1/traffic/series")
    assert {each["version"] for each in answer["series"]} == {""}


async def test_an_envoy_that_is_killed_takes_only_what_had_not_been_read_of_it(
    mesh: RunningMesh, planner: Caller
) -> None:
    before = (await totals(mesh, planner))["worker", "default"]
    await planner.calls("http://worker.mesh/", 20)
    await eventually(
        lambda: _are(mesh, planner, {("worker", "default"): before + 20}), lambda: "the calls were not told"
    )
    victim = mesh.envoy("planner-1")
    await planner.calls("http://worker.mesh/", 10)  # which may be read of it, or not
    victim.kill()

    in_vain = 0

    async def serves() -> bool:
        nonlocal in_vain
        with suppress(httpx.TransportError):
            if (await planner.client.get("http://worker.mesh/status/202")).status_code == 202:
                return True
            in_vain += 1  # it serves, and does not know all yet
        return False

    await eventually(serves, lambda: "there is no new Envoy")
    after = await planner.calls("http://worker.mesh/status/202", 14)
    assert after == {202: 14}

    async def read() -> bool:
        samples = await scraped(mesh, planner.sidecar)
        return added_up(samples, "weft_requests_total", "code")["202"] == 15

    await eventually(read, lambda: "the new Envoy's calls were not counted")
    samples = await scraped(mesh, planner.sidecar)
    assert samples["weft_envoy_restarts_total", frozenset()] == 1
    counted = added_up(samples, "weft_requests_total", "destination")["worker"]
    assert before + 35 <= counted <= before + 45 + in_vain

    async def as_told() -> bool:
        return bool((await totals(mesh, planner))["worker", "default"] == counted)

    await eventually(as_told, lambda: "the control plane was told something else")


async def test_while_nats_is_away_nothing_is_lost(mesh: RunningMesh, door: Caller) -> None:
    before = (await totals(mesh, door))["worker", "asked"]
    mesh.process("nats").kill()
    assert await door.calls("http://worker.mesh/asked", 15) == {200: 15}
    await mesh.notices("nats")
    await mesh.ready("nats")
    assert await door.calls("http://worker.mesh/asked", 15) == {200: 15}

    async def told() -> bool:
        return (await totals(mesh, door))["worker", "asked"] == before + 30

    await eventually(told, lambda: "calls were lost, or told twice")


CLIENT = """
import urllib.request
for _ in range(3):
    urllib.request.urlopen("http://worker.mesh/asked").read()
"""


async def test_a_program_that_ends_at_once_has_its_calls_told(mesh: RunningMesh, door: Caller) -> None:
    before = (await totals(mesh, door))["worker", "asked"]
    state = mesh.local.state
    environ = {
        **mesh.scope.environ,
        "WEFT_NATS": state.nats_url,
        "WEFT_XDS": state.xds_address,
        "WEFT_API": state.api_url,
        "WEFT_CA_FILE": str(mesh.home / "bundle.pem"),
        "WEFT_TOKEN_FILE": str(mesh.home / "token"),
    }
    command = (WEFT, "run", "--", sys.executable, "-c", CLIENT)
    program = await asyncio.create_subprocess_exec(
        *command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await program.communicate()
    assert program.returncode == 0, said.decode()

    async def told() -> bool:
        return (await totals(mesh, door))["worker", "asked"] == before + 3

    await eventually(told, lambda: f"its calls were not told:\n{said.decode()}")


async def test_an_agents_own_metrics_are_an_empty_page_if_it_has_none(mesh: RunningMesh) -> None:
    assert await scraped(mesh, "worker.worker-1", "agent") == {}
