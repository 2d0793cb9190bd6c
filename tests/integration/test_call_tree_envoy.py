"""The limits of a call tree, as a caller's real Envoy enforces them: its deadline, and its way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from tests.envoys import LIMIT, EchoAgent, StaticEnvoy, running_envoy
from tests.pki import Pki
from tests.sds import write_secrets

from weft.aio.ports import reserve_port
from weft.controlplane.snapshots import Snapshots
from weft.model.agent import Instance, Status
from weft.model.hops import loop_detail
from weft.model.manifest import parse_manifest
from weft.model.node import Address, Inbound, Node

HOST = "127.0.0.1"

MANIFEST = """
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: hasty}
spec: {target: {type: hasty}, timeout: 0.2s}
---
apiVersion: weft.dev/v1alpha1
kind: Route
metadata: {name: faulty}
spec:
  destination: {type: faulty}
  rules:
    - match: [{path: {prefix: /fault}}]
      fault: {abort: {status: 418, percent: 100}}
"""


class SilentAgent:
    """Takes requests and never answers, but with the head of an answer where that is asked for."""

    def __init__(self) -> None:
        self.port = 0
        self.gone = asyncio.Event()
        """Set once a caller has gone away."""

    async def __aenter__(self) -> SilentAgent:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/begin" in head:
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                    b"transfer-encoding: chunked\r\n\r\n3\r\n:\n\n\r\n"
                )
            await reader.read()
        self.gone.set()
        writer.close()


@dataclass
class Scene:
    client: httpx.AsyncClient
    echo: EchoAgent
    silent: SilentAgent
    envoy: StaticEnvoy

    async def echoed(self, **headers: str) -> dict[str, str]:
        """What the agent has got of a call with these headers, `_` standing for `-`."""
        response = await self.call("echo", **headers)
        assert response.status_code == 200, response.text
        found: dict[str, str] = response.json()
        return found

    async def call(self, to: str, path: str = "/rpc", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, headers={"host": f"{to}.mesh", **named})


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        echo = await stack.enter_async_context(EchoAgent())
        silent = await stack.enter_async_context(SilentAgent())
        outbound, inbound = (stack.enter_context(reserve_port(HOST)) for _ in range(2))
        node = Node(
            "e-1",
            Address(HOST, outbound.port),
            Inbound("editor", Address(HOST, inbound.port), Address(HOST, echo.port)),
        )
        snapshots = Snapshots([Address(HOST, echo.port)])
        snapshots.update(_instances(echo, silent), parse_manifest(MANIFEST, "test.yaml"))
        outbound.release()
        inbound.release()
        envoy = await stack.enter_async_context(
            running_envoy(snapshots.snapshot(node), node, _secrets, adapt=_in_plain_text)
        )
        client = httpx.AsyncClient(base_url=f"http://{HOST}:{outbound.port}", timeout=LIMIT, trust_env=False)
        yield Scene(await stack.enter_async_context(client), echo, silent, envoy)


def _instances(echo: EchoAgent, silent: SilentAgent) -> list[Instance]:
    ports = {"echo": echo.port, "faulty": echo.port, "silent": silent.port, "hasty": silent.port}
    return [
        Instance(f"{name}-1", name, f"{HOST}:{port}", Status.HEALTHY, frozenset({f"{name}-ing"}))
        for name, port in ports.items()
    ]


def _secrets(directory: Path) -> None:
    write_secrets(directory, Pki(), "spiffe://weft.local/agent/editor/e-1")


def _in_plain_text(cluster: Cluster) -> None:
    cluster.ClearField("transport_socket")
    cluster.ClearField("typed_extension_protocol_options")


def _in_ms(seconds: float) -> str:
    return str(int((time.time() + seconds) * 1000))


async def test_every_call_says_that_it_has_passed_its_callers_type(scene: Scene) -> None:
    assert (await scene.echoed())["x-weft-hops"] == "editor"
    assert (await scene.echoed(x_weft_hops="planner, coder"))["x-weft-hops"] == "planner, coder, editor"
    plain = await scene.echoed(x_weft_hops="planner")
    with_deadline = await scene.echoed(x_weft_hops="planner", x_weft_deadline=_in_ms(60))
    assert with_deadline.keys() == plain.keys() | {"x-weft-deadline"}
    assert with_deadline["x-weft-hops"] == "planner, editor"
    sixteen = ", ".join(["planner"] * 15)
    assert (await scene.echoed(x_weft_hops=sixteen))["x-weft-hops"].count("planner") == 15


async def test_who_is_outside_the_mesh_is_not_told_the_way_and_the_limits(scene: Scene) -> None:
    limits = {"x-weft-hops": "a", "x-weft-deadline": _in_ms(60), "x-weft-budget": "1 usd"}
    outside = await scene.client.get("/any", headers={"host": f"{HOST}:{scene.echo.port}", **limits})
    assert outside.status_code == 200
    assert not limits.keys() & outside.json().keys()


@pytest.mark.parametrize("to", ["echo", "echo-ing.cap", "echo-1.echo"])
async def test_a_tree_that_has_passed_16_agents_is_stopped_with_508_that_names_the_circle(
    scene: Scene, to: str
) -> None:
    hops = ["door", *["coder", "planner", "editor"] * 5]
    response = await scene.call(to, x_weft_hops=",".join(hops))
    assert (response.status_code, response.headers["x-weft-error"]) == (508, "loop-detected")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "urn:weft:problem:loop-detected"
    assert "round: editor -> editor; its way was door -> coder" in problem["detail"]
    assert problem["detail"] == loop_detail([*hops, "editor"], 16)
    circle = (
        await scene.call(to, x_weft_hops=", ".join(["editor", "coder"] * 8), x_weft_deadline="1")
    ).json()
    assert "round: coder -> editor -> coder; " in circle["detail"]
    assert scene.echo.calls == 0


async def test_a_way_of_any_length_and_any_characters_is_read(scene: Scene) -> None:
    for way in (
        '"\\\\,' * 40,
        "a," * 25000,
        "\xff" * 10 + "," * 20 + "b, " * 17 + "b",
        ",".join(map(str, range(500))),
        "," * 25,
    ):
        response = await scene.client.post(
            "/rpc", headers=[(b"host", b"echo.mesh"), (b"x-weft-hops", way.encode("latin-1"))]
        )
        assert response.status_code == 508, way[:20]
        assert len(json.loads(response.text)["detail"]) < 2000
    # Commas alone are no agents.
    assert (await scene.echoed(x_weft_hops=",,,,,", x_weft_deadline=_in_ms(60)))["x-weft-hops"].endswith(
        "editor"
    )


async def test_a_call_past_its_deadline_is_504_and_reaches_nobody(scene: Scene) -> None:
    response = await scene.call("echo", x_weft_deadline=_in_ms(-5))
    assert (response.status_code, response.headers["x-weft-error"]) == (504, "timed-out")
    assert "had passed" in response.json()["detail"]
    assert "'echo.mesh'" in response.json()["detail"]
    assert (await scene.call("control", x_weft_deadline="1")).status_code == 504
    assert scene.echo.calls == 0


@pytest.mark.parametrize("deadline", ["soon", "-1", "1.5", "9" * 16, ""])
async def test_a_deadline_that_is_none_is_400(scene: Scene, deadline: str) -> None:
    response = await scene.call("echo", x_weft_deadline=deadline)
    assert (response.status_code, response.headers["x-weft-error"]) == (400, "invalid-request")


@pytest.mark.parametrize("headers", [{}, {"idempotency_key": "k"}, {"accept": "text/event-stream"}])
async def test_a_call_takes_no_longer_than_its_deadline_leaves(scene: Scene, headers: dict[str, str]) -> None:
    response = await scene.call("silent", x_weft_deadline=_in_ms(0.3), **headers)
    assert (response.status_code, response.headers["x-weft-error"]) == (504, "timed-out")
    assert "deadline of the call tree has passed before 'silent.mesh'" in response.json()["detail"]
    async with asyncio.timeout(LIMIT):
        await scene.silent.gone.wait()


async def test_a_stream_that_has_begun_breaks_off_at_the_deadline(scene: Scene) -> None:
    headers = {"host": "silent.mesh", "accept": "text/event-stream", "x-weft-deadline": _in_ms(1)}
    async with scene.client.stream("POST", "/begin", headers=headers) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.TransportError):
            await response.aread()


async def test_the_routes_own_timeout_holds_where_it_is_shorter(scene: Scene) -> None:
    response = await scene.call("hasty", x_weft_deadline=_in_ms(LIMIT))
    assert (response.status_code, response.headers["x-weft-error"]) == (504, "timed-out")
    assert "raise timeout" in response.json()["detail"]


async def test_an_instance_that_has_too_little_time_is_not_taken_for_a_failing_one(scene: Scene) -> None:
    for _ in range(10):
        assert (await scene.call("silent", x_weft_deadline=_in_ms(0.1))).status_code == 504
    # On a busy machine some of these have no time left before they are sent at all.
    assert 0 < (await scene.envoy.stat(r"cluster\.type/silent\.upstream_rq_max_duration_reached")) <= 10
    # Timeouts count against it, and would have it ejected.
    assert (await scene.envoy.stat(r"cluster\.type/silent\.upstream_rq_timeout")) == 0


async def test_calls_with_a_deadline_are_routed_like_others(scene: Scene) -> None:
    assert (await scene.call("faulty", "/fault", x_weft_deadline=_in_ms(60))).status_code == 418
    assert (await scene.call("faulty", "/else", x_weft_deadline=_in_ms(60))).status_code == 200
    assert (await scene.call("nobody", x_weft_deadline=_in_ms(60))).status_code == 404
    assert (await scene.call("echo-1.echo", x_weft_deadline=_in_ms(60))).status_code == 200
    assert (await scene.call("echo-2.echo", x_weft_deadline=_in_ms(60))).status_code == 503
    assert (await scene.call("control", x_weft_deadline=_in_ms(60))).status_code == 200
