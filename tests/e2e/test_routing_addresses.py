"""How programs that know nothing of Weft reach agents, by every address there is; and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from tests.binaries import WEFT
from tests.e2e.crew import Crew, answers, problem, tally
from tests.e2e.meshes import eventually
from tests.integration.sidecar_process import LIMIT

from weft.aio.ports import reserve_port
from weft.local.control import ControlApi

EVERYBODY = {"w-1", "w-2", "w-3"}


@pytest.fixture
async def client(crew: Crew) -> AsyncIterator[httpx.AsyncClient]:
    async with crew.client() as client:
        yield client


@pytest.fixture
async def direct(crew: Crew) -> AsyncIterator[httpx.AsyncClient]:
    """A client that addresses the listener itself, as one does that ignores HTTP_PROXY."""
    async with httpx.AsyncClient(base_url=crew.core.proxy_url, trust_env=False, timeout=LIMIT) as client:
        yield client


@pytest.mark.parametrize("host", ["worker.mesh", "worker.mesh:80", "evenly.cap.mesh"])
async def test_a_type_or_capability_reaches_all_of_its_instances(
    client: httpx.AsyncClient, host: str
) -> None:
    assert (await tally(client, f"http://{host}/", 9)).keys() == EVERYBODY


async def test_an_instance_is_reached_by_its_own_name(client: httpx.AsyncClient) -> None:
    assert await tally(client, "http://w-2.worker.mesh/", 9) == {"w-2": 9}


@pytest.mark.parametrize("name", ["worker", "worker.mesh", "evenly.cap", "evenly.cap.mesh"])
async def test_a_header_names_the_destination(direct: httpx.AsyncClient, name: str) -> None:
    assert (await tally(direct, "/", 9, headers={"x-weft-to": name})).keys() == EVERYBODY


async def test_a_header_names_an_instance(direct: httpx.AsyncClient) -> None:
    assert await tally(direct, "/", 9, headers={"x-weft-to": "w-2.worker.mesh"}) == {"w-2": 9}


@pytest.mark.parametrize(
    ("name", "reached"), [("worker", EVERYBODY), ("evenly.cap", EVERYBODY), ("w-2.worker", {"w-2"})]
)
async def test_names_below_localhost_address_the_listener_itself(
    crew: Crew, direct: httpx.AsyncClient, name: str, reached: set[str]
) -> None:
    host = f"{name}.mesh.localhost:{crew.core.ports.proxy}"
    assert (await tally(direct, "/", 9, headers={"host": host})).keys() == reached


async def test_a_program_that_knows_only_http_proxy_calls_the_mesh(crew: Crew) -> None:
    program = (
        "import urllib.request; print(urllib.request.urlopen('http://worker.mesh/foreign').read().decode())"
    )
    run = await asyncio.create_subprocess_exec(
        *(WEFT, "run", "--", sys.executable, "-c", program),
        env={**crew.scope.environ, **crew.core.operator_environ},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT):
        output, _ = await run.communicate()
    assert run.returncode == 0
    seen = json.loads(output)
    assert (seen["path"], seen["headers"]["host"]) == ("/foreign", "worker.mesh")


async def test_a_host_outside_the_mesh_is_reached_at_its_port(client: httpx.AsyncClient) -> None:
    with outside_server() as port:
        for host in ("127.0.0.1", "localhost"):
            response = await client.get(f"http://{host}:{port}/path?query")
            assert (response.status_code, response.text) == (200, f"/path?query at {host}:{port}")


async def test_a_host_that_does_not_exist_is_unavailable(client: httpx.AsyncClient) -> None:
    assert problem(await client.get("http://nowhere.invalid/")) == (503, "unavailable")


@pytest.mark.parametrize("host", ["nobody.mesh", "nothing.cap.mesh", "w-1.nobody.mesh", "mesh.mesh"])
async def test_an_unknown_type_or_capability_is_no_such_agent(client: httpx.AsyncClient, host: str) -> None:
    response = await client.get(f"http://{host}/")
    assert problem(response) == (404, "no-such-agent")
    assert host in response.json()["detail"]
    assert "weft agents" in response.json()["detail"]


async def test_an_unknown_name_in_the_header_is_no_such_agent(direct: httpx.AsyncClient) -> None:
    response = await direct.get("/", headers={"x-weft-to": "nobody"})
    assert problem(response) == (404, "no-such-agent")


@pytest.mark.parametrize("host", ["w-9.worker.mesh", "w-2.other.worker.mesh"])
async def test_an_instance_that_is_not_there_has_nobody_to_answer_for_it(
    client: httpx.AsyncClient, host: str
) -> None:
    response = await client.get(f"http://{host}/")
    assert problem(response) == (503, "no-healthy-agent")
    assert host in response.json()["detail"]


async def test_oversized_headers_are_refused_before_an_agent_sees_them(
    crew: Crew, client: httpx.AsyncClient
) -> None:
    for headers in ({"x-large": "x" * 70_000}, {f"x-{number}": "1" for number in range(200)}):
        response = await client.get("http://worker.mesh/oversized", headers=headers)
        assert response.status_code == 431
    assert not any("GET /oversized" in each.seen() for each in crew.members.values())
    assert (await client.get("http://worker.mesh/")).status_code == 200


@pytest.mark.parametrize(
    "garbage", [b"\x00\x01 garbage\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /\r\nno-colon\r\n\r\n"]
)
async def test_what_is_not_http_is_answered_as_such(crew: Crew, garbage: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", crew.core.ports.proxy)
    writer.write(garbage)
    async with asyncio.timeout(LIMIT):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 426 "))


async def test_a_body_of_many_megabytes_passes(client: httpx.AsyncClient) -> None:
    response = await client.post("http://worker.mesh/", content=b"x" * 5_000_000)
    assert response.json()["size"] == 5_000_000


async def test_an_agent_gets_no_calls_until_its_health_makes_sense(
    crew: Crew, client: httpx.AsyncClient
) -> None:
    with ExitStack() as ends:
        sick = crew.prepare("sick-1")
        async with crew.core.api() as api:
            with sick.set("health", "garbage"):
                crew.join(ends, "sick-1", "--type=sick")
                await _says(api, "starting", "HTTP")
                assert problem(await client.get("http://sick.mesh/")) == (503, "no-healthy-agent")
            with sick.set("health", "500"):
                await _says(api, "starting", "500")
            await answers(client, "http://sick.mesh/", "sick-1")
            with sick.set("health", "503"):
                await _says(api, "unhealthy", "503")

                async def spared() -> bool:
                    return (await client.get("http://sick.mesh/")).status_code == 503

                await eventually(spared, lambda: "an unhealthy agent still gets calls")
                assert problem(await client.get("http://sick.mesh/")) == (503, "no-healthy-agent")


async def test_a_call_falls_back_to_farther_instances_as_near_ones_die(crew: Crew) -> None:
    places = {
        "p-near": ("--region=eu", "--zone=a"),
        "p-mid": ("--region=eu", "--zone=b"),
        "p-far": ("--region=us", "--zone=a"),
    }
    with ExitStack() as ends:
        members = {name: crew.join(ends, name, "--type=place", *where) for name, where in places.items()}
        with reserve_port("127.0.0.1") as reserved:
            port = reserved.port
        caller = crew.core.sidecar("near-caller", f"--outbound-port={port}", *places["p-near"])
        ends.callback(caller.stop)
        caller.start()
        async with crew.client() as everywhere, crew.client(port) as client:
            await answers(everywhere, "http://place.mesh/", *places)
            await answers(client, "http://p-far.place.mesh/", "p-far")
            for name in ("p-near", "p-mid", "p-far"):
                found = await tally(client, "http://place.mesh/", 10, headers={"idempotency-key": name})
                assert found == {name: 10}
                members[name].sidecar.kill_family()
            assert problem(await client.get("http://place.mesh/")) == (503, "no-healthy-agent")


async def _says(api: ControlApi, status: str, reason: str) -> None:
    """Wait until the control plane gives this status of the sick agent, for this reason."""

    async def it_does() -> bool:
        found = await api.agents([("type", "sick"), ("status", "any")])
        return [True for each in found if each["status"] == status and reason in each["reason"]] == [True]

    await eventually(it_does, lambda: f"the sick agent never was {status} because of {reason}")


class _Outside(BaseHTTPRequestHandler):
    """A server that is not in the mesh."""

    def do_GET(self) -> None:
        """Say what was asked for, and of whom."""
        body = f"{self.path} at {self.headers['host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def outside_server() -> Iterator[int]:
    """The port of a server that is not in the mesh."""
    with HTTPServer(("127.0.0.1", 0), _Outside) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
