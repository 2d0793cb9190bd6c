"""Secrets, injected by the real Envoy: outside hosts get them, agents and whoever looks at Envoy never do."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.outside import Caller, OutsideHost, caller
from tests.pki import Pki
from tests.servers import nats_server

from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.model.manifest import parse_documents
from weft.model.yaml_tree import dump
from weft.resources.store import Resources
from weft.store.nats import NatsStore

NAME = "api.example.test"
URL = f"http://{NAME}/v1/models"
VALUE = "s3cr3t-of-the-provider"
PKI = Pki()
CA = PKI.root.public_bytes(Encoding.PEM).decode()


def secret(host: OutsideHost, value: Any = VALUE, **injection: Any) -> str:
    """A Secret that is injected into calls to api.example.test, which is `host`."""
    inject = {"host": NAME, "port": host.port, "address": "127.0.0.1", "key": "apiKey", "prefix": "Bearer "}
    spec = {"data": {"apiKey": value}, "inject": [{"ca": CA, **inject, **injection}]}
    return dump(
        [{"apiVersion": "weft.dev/v1alpha1", "kind": "Secret", "metadata": {"name": "llm"}, "spec": spec}]
    )


@pytest.fixture
def secrets() -> Secrets:
    return Secrets(Sealer([os.urandom(32)]))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[OutsideHost]:
    async with OutsideHost(PKI, NAME).serving(tmp_path) as serving:
        yield serving


@pytest.fixture
async def worker(secrets: Secrets) -> AsyncIterator[Caller]:
    async with caller("worker", secrets) as running:
        yield running


async def test_the_host_gets_the_header_by_tls_whatever_the_agent_sends_in_it(
    worker: Caller, host: OutsideHost
) -> None:
    await worker.declare(secret(host))
    for own in ({}, {"authorization": "Bearer mine"}, {"Authorization": "a", "aUTHORIZATION": "b"}):
        response = await worker.http.get(URL, headers=own)
        assert (response.status_code, response.text) == (httpx.codes.OK, "outside")
        assert VALUE not in str(response.headers)
        assert host.last["authorization"] == f"Bearer {VALUE}"
    assert host.requests[-1].lower().count("authorization:") == 1
    assert host.last[""] == "GET /v1/models HTTP/1.1"
    assert host.last["host"] == f"{NAME}:{host.port}"
    assert not host.last.keys() & {"x-forwarded-proto", "x-envoy-external-address", "x-weft-to"}


async def test_a_new_value_is_used_by_the_next_call_and_none_after_the_secret_is_gone(
    worker: Caller, host: OutsideHost
) -> None:
    await worker.declare(secret(host))
    await worker.http.get(URL)
    await worker.declare(secret(host, "rotated"))
    await worker.http.get(URL)
    assert host.last["authorization"] == "Bearer rotated"
    await worker.declare("", without=["secret.llm"])
    calls = len(host.requests)
    response = await worker.http.get(URL)  # now a name like any other, which nobody can resolve
    assert response.headers["x-weft-error"] == "unavailable"
    assert len(host.requests) == calls


async def test_envoy_shows_the_value_to_nobody(worker: Caller, host: OutsideHost) -> None:
    await worker.declare(secret(host))
    await worker.http.get(URL)
    for page in ("config_dump?include_eds", "certs", "clusters", "stats", "listeners", "server_info"):
        shown = (await worker.admin.get(f"http://envoy/{page}")).text
        assert VALUE not in shown
        assert page != "config_dump?include_eds" or "outside/api.example.test" in shown
    described = repr(worker.snapshots.snapshot(worker.node))
    assert VALUE not in described


@pytest.mark.parametrize("agent_type", ["reader", None], ids=["another type", "a sidecar without an agent"])
async def test_others_than_those_it_is_for_do_not_even_get_the_value(
    secrets: Secrets, host: OutsideHost, agent_type: str | None
) -> None:
    async with caller(agent_type, secrets) as other:
        await other.declare(secret(host, VALUE, **{"for": ["worker"]}))
        assert not other.snapshots.snapshot(other.node).secrets
        response = await other.http.get(URL)
    assert response.headers["x-weft-error"] == "unavailable"
    assert not host.requests


async def test_a_host_that_cannot_prove_its_name_gets_nothing(
    worker: Caller, host: OutsideHost, tmp_path: Path
) -> None:
    impostor = OutsideHost(PKI, "evil.example.test")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(impostor.serving(tmp_path))
        await worker.declare(secret(impostor))
        wrong_name = await worker.http.get(URL)
        await worker.declare(secret(host, ca=None))
        unknown_authority = await worker.http.get(URL)
    for refused in (wrong_name, unknown_authority):
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "CERTIFICATE_VERIFY_FAILED" in refused.json()["detail"]
    assert not impostor.requests + host.requests


async def test_no_call_goes_out_without_a_value_that_cannot_be_opened(
    host: OutsideHost, secrets: Secrets
) -> None:
    async with caller("worker", Secrets(Sealer([os.urandom(32)]))) as worker:
        [sealed_with_another_key] = [
            secrets(each, None) for each in parse_documents(secret(host, tls=False, ca=None))
        ]
        worker.snapshots.update([], [sealed_with_another_key])
        await worker.synced()
        response = await worker.http.get(URL)
    assert response.headers["x-weft-error"] == "unavailable"
    assert "the value of Secret 'llm'" in response.json()["detail"]
    assert not host.requests


async def test_what_nats_keeps_on_disk_holds_the_name_and_not_the_value(
    secrets: Secrets, host: OutsideHost, tmp_path: Path
) -> None:
    async with nats_server(tmp_path) as server:
        store = await NatsStore.connect([server.url], name="test")
        try:
            resources = await Resources.open(store, secrets)
            await resources.apply(parse_documents(secret(host)))
        finally:
            await store.close()
        kept = b"".join(each.read_bytes() for each in server.data.rglob("*") if each.is_file())
    assert b"apiKey" in kept
    assert VALUE.encode() not in kept
