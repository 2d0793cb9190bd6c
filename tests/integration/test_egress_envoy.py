"""What an Egress lets out and what not, with the real Envoy; tricks are sent as raw bytes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.outside import Caller, OutsideHost, caller

from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets


def egress(spec: str, name: str = "default") -> str:
    return f"apiVersion: weft.dev/v1alpha1\nkind: Egress\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"


def only(host: OutsideHost) -> str:
    """Nothing but `host`, as localhost."""
    return egress(f"mode: list, allow: [{{host: localhost, ports: [{host.port}]}}]")


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[OutsideHost]:
    async with OutsideHost().serving(tmp_path) as serving:
        yield serving


@pytest.fixture
async def worker() -> AsyncIterator[Caller]:
    async with caller("worker", Secrets(Sealer([os.urandom(32)]))) as running:
        yield running


async def tunnelled(worker: Caller, authority: str, host: str = "inside") -> str:
    """The answers to CONNECT and, where it is heeded, to a request for `host` through the tunnel."""
    connect = f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n"
    inner = f"GET /inside HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    return await worker.raw((connect + inner).encode())


async def test_what_is_listed_can_be_reached_and_all_else_is_denied_naming_it_and_the_egress(
    worker: Caller, host: OutsideHost
) -> None:
    await worker.declare(only(host))
    for name in ("localhost", "LocalHost"):
        assert (await worker.http.get(f"http://{name}:{host.port}/")).text == "outside"
    for elsewhere in (f"127.0.0.1:{host.port}", f"localhost:{host.port + 1}", "other.example"):
        response = await worker.http.get(f"http://{elsewhere}/")
        assert response.status_code == httpx.codes.FORBIDDEN
        assert (response.headers["x-weft-error"], response.headers["x-weft-policy"]) == (
            "denied",
            "egress/default",
        )
        assert f"'{elsewhere}' is not among what Egress 'default' allows" in response.json()["detail"]
    assert len(host.requests) == 2
    denials = await worker.denials(3)
    assert {(each.who, each.action, each.policy) for each in denials} == {
        ("me", "reach outside", "egress/default")
    }
    assert denials[-1].target == "GET other.example"
    in_the_mesh = await worker.http.get("http://nobody.mesh/")
    assert in_the_mesh.headers["x-weft-error"] == "no-such-agent"


async def test_outside_hosts_get_the_trace_that_there_is_and_no_header_without_a_value(
    worker: Caller, host: OutsideHost
) -> None:
    url = f"http://localhost:{host.port}/"
    await worker.http.get(url)
    assert "traceparent" in host.last
    assert not {"tracestate", "x-weft-tracestate", "x-client-trace-id"} & host.last.keys()
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-00", "tracestate": "vendor=1"}
    await worker.http.get(url, headers=trace)
    assert host.last["traceparent"].startswith(f"00-{'a' * 32}-")
    assert host.last["tracestate"] == "vendor=1"


async def test_what_comes_through_a_tunnel_into_the_mesh_is_a_request_like_any_other(
    worker: Caller, host: OutsideHost
) -> None:
    """Node's fetch opens one for `http://` too."""
    await worker.declare(only(host))
    opened, _, answer = (await tunnelled(worker, "nobody.mesh:80", "nobody.mesh")).partition("\r\n\r\n")
    assert opened.startswith("HTTP/1.1 200")
    assert answer.startswith("HTTP/1.1 404")
    assert "no-such-agent" in answer
    _, _, elsewhere = (await tunnelled(worker, "nobody.mesh:80", "other.example")).partition("\r\n\r\n")
    assert elsewhere.startswith("HTTP/1.1 403")
    assert (await tunnelled(worker, "nobody.mesh:443")).startswith("HTTP/1.1 404")
    for name in ("llm.mesh", "tools.mesh", "control.mesh", "worker-1.worker.mesh"):
        opened, _, answer = (await tunnelled(worker, f"{name}:80", name)).partition("\r\n\r\n")
        assert opened.startswith("HTTP/1.1 200")
        assert answer.startswith("HTTP/1.1 ")


async def test_a_tunnel_leads_to_what_is_listed_only(worker: Caller, host: OutsideHost) -> None:
    await worker.declare(only(host))
    opened = await tunnelled(worker, f"localhost:{host.port}")
    assert opened.startswith("HTTP/1.1 200")
    assert opened.endswith("outside")
    assert host.last[""] == "GET /inside HTTP/1.1"
    others = (f"127.0.0.1:{host.port}", f"localhost:{host.port + 1}", "localhost", "worker.mesh:81")
    refused = await asyncio.gather(*(tunnelled(worker, each) for each in others))
    assert [each.split(" ", 2)[1] for each in refused] == ["403", "403", "400", "404"]
    assert len(host.requests) == 1


async def finished(worker: Caller, head: str) -> str:
    """The answer to a request of this first line and these headers."""
    host = "" if "\r\nhost: " in head else "\r\nhost: x"
    return await worker.raw(f"{head}{host}\r\nconnection: close\r\n\r\n".encode())


TRICKS = {
    "the address": "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nhost: localhost:{port}",
    "the address in the host only": "GET / HTTP/1.1\r\nhost: 127.0.0.1:{port}",
    "the address as one number": "GET http://2130706433:{port}/ HTTP/1.1",
    "the address in octal": "GET http://0177.0.0.1:{port}/ HTTP/1.1",
    "the address in short": "GET http://127.1:{port}/ HTTP/1.1",
    "the address of IPv6": "GET http://[::ffff:127.0.0.1]:{port}/ HTTP/1.1",
    "a user before the host": "GET http://localhost:{port}@127.0.0.1:{port}/ HTTP/1.1",
    "a user in the host header": "GET / HTTP/1.1\r\nhost: localhost:{port}@127.0.0.1:{port}",
    "a fragment": "GET http://127.0.0.1:{port}#@localhost:{port}/ HTTP/1.1",
    "a query": "GET http://127.0.0.1:{port}?@localhost:{port} HTTP/1.1",
    "a backslash": "GET http://127.0.0.1:{port}\\@localhost:{port}/ HTTP/1.1",
    "a dot at the end": "GET http://localhost.:{port}/ HTTP/1.1",
    "a second port": "GET http://localhost:{port}:{port}/ HTTP/1.1",
    "a port of zeroes first": "GET http://localhost:0{port}/ HTTP/1.1",
    "the listed host, escaped": "GET http://127.0.0.1:{port}%2flocalhost:{port}/ HTTP/1.1",
    "a blank in the host": "GET / HTTP/1.1\r\nhost: 127.0.0.1:{port} localhost:{port}",
    "a list of hosts": "GET / HTTP/1.1\r\nhost: localhost:{port},127.0.0.1:{port}",
    "two hosts": "GET / HTTP/1.1\r\nhost: localhost:{port}\r\nhost: 127.0.0.1:{port}",
    "two hosts, the other way": "GET / HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nhost: localhost:{port}",
    "a name of the mesh": "GET http://127.0.0.1.mesh:{port}/ HTTP/1.1\r\nhost: localhost:{port}",
    "a name of the mesh with a dot": "GET http://worker.mesh.:{port}/ HTTP/1.1\r\nhost: localhost:{port}",
    "addressed otherwise": "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nx-weft-to: localhost:{port}",
    "addressed to nobody": "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nx-weft-to:",
    "a destination of one's own": (
        "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nx-weft-destination: localhost:{port}"
    ),
    "a forwarded host": ("GET http://127.0.0.1:{port}/ HTTP/1.1\r\nx-forwarded-host: localhost:{port}"),
    "an original destination": (
        "GET http://other.example/ HTTP/1.1\r\nx-envoy-original-dst-host: 127.0.0.1:{port}"
    ),
    "HTTP/1.0": "GET http://127.0.0.1:{port}/ HTTP/1.0\r\nhost: localhost:{port}",
    "a tunnel for another host header": "CONNECT 127.0.0.1:{port} HTTP/1.1\r\nhost: localhost:{port}",
    "a tunnel with a user": "CONNECT localhost:{port}@127.0.0.1:{port} HTTP/1.1",
    "a tunnel addressed otherwise": ("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nx-weft-to: localhost:{port}"),
    "an upgrade": ("GET http://127.0.0.1:{port}/ HTTP/1.1\r\nconnection: upgrade\r\nupgrade: CONNECT"),
}


async def test_no_way_of_writing_a_host_gets_around_the_list(worker: Caller, host: OutsideHost) -> None:
    await worker.declare(only(host))
    heads = [request.format(port=host.port) for request in TRICKS.values()]
    answers = await asyncio.gather(*(finished(worker, each) for each in heads))
    refused = ("HTTP/1.1 400", "HTTP/1.1 403", "HTTP/1.1 404", "HTTP/1.1 426")
    through = {
        trick: answer
        for trick, answer in zip(TRICKS, answers, strict=True)
        if answer and not answer.startswith(refused)  # without an answer it was hung up on
    }
    assert not through
    assert not host.requests


async def test_below_a_wildcard_is_listed_but_not_what_only_looks_like_it(worker: Caller) -> None:
    await worker.declare(egress("mode: list, allow: [{host: '*.example.test', ports: [80]}]"))
    listed = ("a.example.test", "b.A.example.test", "a.example.test:80")
    others = (
        "example.test",
        "aexample.test",
        "a.example.test.evil.test",
        "a@b.example",
        "a.example.test:81",
    )
    answers = await asyncio.gather(*(finished(worker, f"GET http://{each}/ HTTP/1.1") for each in listed))
    assert all("x-weft-error: unavailable" in each for each in answers)  # let out, but nobody can resolve it
    answers = await asyncio.gather(*(finished(worker, f"GET http://{each}/ HTTP/1.1") for each in others))
    assert all(each.startswith("HTTP/1.1 403") for each in answers)


async def test_a_type_has_its_own_rule_in_place_of_the_default(worker: Caller, host: OutsideHost) -> None:
    here = f"http://127.0.0.1:{host.port}/"
    await worker.declare(egress("mode: list") + egress("mode: open, for: [worker]", "workers"))
    assert (await worker.http.get(here)).text == "outside"
    await worker.declare(egress("mode: list, for: [worker]", "workers"))
    assert (await worker.http.get(here)).headers["x-weft-policy"] == "egress/workers"
    await worker.declare("", without=["egress.workers"])
    assert (await worker.http.get(here)).headers["x-weft-policy"] == "egress/default"
    await worker.declare("", without=["egress.default"])
    assert (await worker.http.get(here)).text == "outside"


async def test_a_host_with_a_secret_for_the_caller_is_listed_by_that(
    worker: Caller, host: OutsideHost
) -> None:
    await worker.declare(
        egress("mode: list") + "apiVersion: weft.dev/v1alpha1\nkind: Secret\nmetadata: {name: key}\nspec:\n"
        f"  data: {{key: v}}\n  inject: [{{host: localhost, port: {host.port}, tls: false, key: key}}]\n"
    )
    assert (await worker.http.get("http://localhost/")).text == "outside"
    assert host.last["authorization"] == "v"
    assert (await tunnelled(worker, f"localhost:{host.port}")).endswith("outside")
    assert "authorization" not in host.last
    refused = await worker.http.get(f"http://localhost:{host.port + 1}/")
    assert refused.headers["x-weft-error"] == "denied"
