"""One trace through a whole mesh: gateway, task, agents, a retry, a tool, a model, an event, in one tree."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.e2e.llm_stage import provider
from tests.e2e.meshes import RunningMesh, eventually, mesh_client, running_mesh
from tests.e2e.messaging_mesh import agent, calling, document, manifest
from tests.span_collector import SpanCollector, span_collector

from weft.aio.ports import reserve_port

# Six programs with their sidecars take their time to start on a machine that has other things to do.
START = 240.0
NAMES = ("clerk-1", "desk-1", "writer-1", "writer-2", "elder-1", "public-1")

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(START + 180)]

EXPECTED = {
    "gateway public",
    "submit jobs",
    "process jobs",
    "invoke_agent writer",
    "serve writer",
    "execute_tool stamp",
    "serve desk",
    "chat plain",
    "invoke_agent elder",
    "serve elder",
    "think",
    "publish news",
    "process news",
}


@dataclass
class Scene:
    """A mesh, somebody outside of it, and a collector of others that gets its spans, too."""

    mesh: RunningMesh
    gateway: str
    collector: SpanCollector
    directory: Path
    trace: dict[str, Any] = field(default_factory=dict)

    async def get(self, path: str) -> Any:
        """What the API answers."""
        return await self.mesh.api.ask("GET", path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    directory = tmp_path_factory.mktemp("traced")
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(span_collector())
        simulated = await stack.enter_async_context(provider())
        with reserve_port("127.0.0.1") as reserved:
            port = reserved.port
        declared = manifest(
            document("ModelPool", "plain", providers=[{"name": "first", "url": simulated.url}]),
            document("Queue", "jobs"),
            document("Topic", "news"),
            document(
                "Telemetry",
                "recorded",
                target={"type": "desk"},
                tracing={"samplingPercent": 100},
                recording={"messages": True},
            ),
        )
        agents = manifest(
            *(agent(name, "traced.py", directory) for name in ("clerk", "desk")),
            agent("writer", "traced.py", directory, replicas=2),
            agent("elder", "elder.py"),
            document("Gateway", "public", port=port, anonymous=True, queues=["jobs"]),
        )
        environ = {
            "WEFT_CONTROL_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "WEFT_CONTROL_OTLP_METRICS_INTERVAL": "0",
            "WEFT_LOG_FORMAT": "json",
        }
        mesh = await stack.enter_async_context(running_mesh(declared, environ=environ))
        await mesh.apply(agents)

        async def there() -> bool:
            known = mesh.local.children
            return all(name in known and known[name].phase == "ready" for name in NAMES)

        await eventually(there, lambda: f"not all are there: {mesh.local.children}", limit=START)
        client = await stack.enter_async_context(mesh_client(mesh))

        tools: set[str] = set()

        async def listed() -> bool:
            tools.update(each.name for each in await client.tools())
            return "stamp" in tools

        await eventually(listed, lambda: f"there are only {tools}\n{mesh.log('desk-1')}")
        yield Scene(mesh, f"http://127.0.0.1:{port}", collector, directory)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spans(scene: Scene) -> list[dict[str, Any]]:
    """The spans of a task that somebody submits at the gateway, as the API shows them once all are there."""
    async with calling(scene.gateway) as outside:
        task = await outside.ended(await outside.submit("jobs", {"text": "hello"}))
    assert (task["state"], task["result"]) == ("succeeded", "[hello] hm"), task
    found: list[dict[str, Any]] = []

    async def whole() -> bool:
        listed = await scene.get("/v1/traces?service=clerk&q=jobs&limit=10")
        if not listed["traces"]:
            return False
        [shown] = listed["traces"]
        found[:] = (await scene.get(f"/v1/traces/{shown['id']}"))["spans"]
        return {each["name"] for each in found} >= EXPECTED and bool(attempts(found))

    def otherwise() -> str:
        return f"missing: {EXPECTED - {each['name'] for each in found}}\n{drawn(found)}"

    await eventually(whole, otherwise)
    return found


def attempts(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a call that had to be made again."""
    return [each for each in spans if each["name"].startswith("attempt ")]


def drawn(spans: list[dict[str, Any]], parent: str = "", depth: int = 0) -> str:
    """The tree, as text."""
    known = {each["id"] for each in spans}
    below = [each for each in spans if (each["parent"] if each["parent"] in known else "") == parent]
    lines = []
    for each in below:
        lines.append(f"{'  ' * depth}{each['name']} ({each['kind']}, {each['service']}, {each['status']})")
        lines.append(drawn(spans, each["id"], depth + 1))
    return "\n".join(filter(None, lines))


def ways(spans: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """The names from the root to each span."""
    by_id = {each["id"]: each for each in spans}

    def way(span: Mapping[str, Any]) -> tuple[str, ...]:
        parent = by_id.get(span["parent"])
        return (*(way(parent) if parent is not None else ()), span["name"])

    return {way(each) for each in spans}


async def test_all_that_was_done_for_a_task_is_one_tree(spans: list[dict[str, Any]]) -> None:
    ids = {each["id"] for each in spans}
    roots = [each["name"] for each in spans if each["parent"] not in ids]
    assert roots == ["gateway public"], drawn(spans)
    begin = ("gateway public", "submit jobs", "process jobs")
    write = (*begin, "invoke_agent writer", "serve writer", "invoke_agent writer")
    expected = {
        (*write, "execute_tool stamp", "serve desk", "execute_tool stamp"),
        (*write, "chat plain"),
        (*write, "invoke_agent elder", "serve elder", "think"),
        (*begin, "publish news", "process news"),
    }
    assert expected <= ways(spans), drawn(spans)


async def test_the_attempt_that_failed_is_told_with_the_instance_that_did(
    spans: list[dict[str, Any]],
) -> None:
    calls = [each for each in spans if each["name"] == "invoke_agent writer" and each["kind"] == "client"]
    assert len(calls) == 1
    failed = [each for each in attempts(spans) if each["status"] == "error"]
    assert [each["parent"] for each in failed] == [calls[0]["id"]], drawn(spans)
    handled = [each for each in spans if each["name"] == "invoke_agent writer" and each["kind"] == "internal"]
    assert sorted(each["status"] for each in handled) == ["error", "unset"]
    assert len({each["instance"] for each in handled}) == 2


async def test_each_span_says_who_did_it(scene: Scene, spans: list[dict[str, Any]]) -> None:
    who = {each["name"]: (each["service"], each["kind"]) for each in spans}
    assert who["submit jobs"] == ("public", "producer")
    assert who["process jobs"] == ("clerk", "consumer")
    assert who["process news"] == ("desk", "consumer")
    assert who["think"] == ("elder", "server")
    [thought] = [each for each in spans if each["name"] == "think"]
    assert thought["attributes"]["depth"] == 42
    assert thought["instance"] == "elder-1"
    (stamped,) = (
        each for each in spans if each["name"] == "execute_tool stamp" and each["kind"] == "internal"
    )
    [asked] = json.loads(stamped["attributes"]["gen_ai.input.messages"])
    assert json.loads(asked["parts"][0]["content"]) == {"text": "hello"}


async def test_a_collector_of_others_has_the_same_spans(scene: Scene, spans: list[dict[str, Any]]) -> None:
    wanted = {each["id"] for each in spans}
    await scene.collector.has(lambda here: wanted <= {each.id for each in here.spans})
    forwarded = {each.id: each for each in scene.collector.spans if each.id in wanted}
    assert {each.id: (each.name, each.parent) for each in forwarded.values()} == {
        each["id"]: (each["name"], each["parent"]) for each in spans
    }


async def test_the_log_of_an_agent_says_of_which_trace_it_is_and_no_secret(
    scene: Scene, spans: list[dict[str, Any]]
) -> None:
    lines = [line[line.index("{") :] for line in scene.mesh.log("clerk-1").splitlines() if "a job" in line]
    [said] = [json.loads(each) for each in lines]
    [processed] = [each for each in spans if each["name"] == "process jobs"]
    assert said["message"] == "a job with [redacted]"
    assert said["span_id"] == processed["id"]
    assert said["agent"] == "clerk.clerk-1"
