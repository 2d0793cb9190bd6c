"""What a program counts of its tasks and events, and the page that shows it to this machine only."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.gateways import gateway_scene

from weft import Agent, Mesh, ReceivedEvent
from weft.aio.poll import until
from weft.messaging.brokers.memory import MemoryBroker
from weft.sdk.transport import Call
from weft.store.memory import MemoryStore
from weft.testing import InMemoryMesh
from weft.testing.asgi import AsgiTransport
from weft.work.metrics import metrics_page

LIMIT = 30.0


def samples(page: bytes) -> dict[tuple[str, str], float]:
    """By name, and the values of its labels."""
    return {
        (sample.name, " ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


async def get(agent: Agent, headers: dict[str, str]) -> tuple[int, str, bytes]:
    async with AsgiTransport(agent.asgi).exchange(Call("GET", "agent", "/metrics", headers)) as answer:
        body = b"".join([chunk async for chunk in answer.chunks()])
        return answer.status, answer.headers.get("content-type", ""), body


async def test_an_agent_shows_its_figures_to_its_sidecar_and_not_to_the_mesh() -> None:
    agent = Agent("worker")
    status, kind, body = await get(agent, {})
    assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
    assert b"python_info" in body
    status, _, body = await get(agent, {"x-weft-caller": "spiffe://weft.local/agent/other/o-1"})
    assert (status, b"python_info" in body) == (404, False)
    await agent.asgi.aclose()


async def test_tasks_and_events_are_counted_by_who_submits_does_and_takes_them() -> None:
    agent, meshes, taken = Agent("worker"), [], []

    @agent.task("greet")
    async def greet(name: str, mesh: Mesh) -> str:
        meshes.append(mesh)
        return f"hello {name}"

    @agent.on("orders")
    async def take(event: ReceivedEvent) -> None:
        taken.append(event)

    async with InMemoryMesh(queues=["greet"], topics=["orders"]) as mesh:
        mesh.add(agent)
        for name in ("a", "b", "c"):
            assert await (await mesh.client.submit("greet", {"name": name})).result(LIMIT) == f"hello {name}"
        await mesh.client.publish("orders", {"number": 7})

        async def counted() -> bool:
            shown = samples(metrics_page(meshes[0].metrics))
            return shown.get(("weft_messages_processed_total", "topic/orders/worker succeeded")) == 1

        await until(counted)
        submitted = samples(metrics_page(mesh.client.metrics))
        assert submitted["weft_tasks_submitted_total", "greet"] == 3
        done = samples(metrics_page(meshes[0].metrics))
        assert done["weft_tasks_finished_total", "greet succeeded"] == 3
        assert done["weft_task_run_seconds_count", "greet"] == 3
    assert len(taken) == 1


async def test_a_gateway_shows_its_figures_to_its_sidecar_only() -> None:
    store, broker = MemoryStore(), MemoryBroker()
    async with gateway_scene() as scene:
        await scene.declare(broker)
        client = await scene.gateway(store, broker)
        shown = await client.get("/metrics")
        assert shown.status_code == 200
        assert ("weft_messages_in_flight", "") not in samples(shown.content)
        assert "weft_tasks_submitted" in shown.text
        for name in ("x-weft-caller", "x-weft-door"):
            assert (await client.get("/metrics", headers={name: "outside"})).status_code == 404
    await broker.aclose()
    await store.close()
