"""`weft kubernetes bootstrap` as the process of a pod, before an API server.

The one of the first tests is a stand-in, which does what this asks of a real one: TLS, tokens, Secrets that
can be created and not overwritten. The last test asks the real one, where there is one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.kubernetes_server import kubernetes_server, missing
from tests.pki import Pki

from weft.cli.exit_codes import ExitCode
from weft.errors import Denied, InvalidRequest, Unauthenticated, Unavailable
from weft.identity.cluster_api import MAX_ANSWER_BYTES
from weft.identity.pod_access import PodAccess
from weft.kubernetes.first_keys import first_keys
from weft.kubernetes.in_cluster import InCluster

HOST = "127.0.0.1"
TOKEN = "of-the-pod"
NAMESPACE = "mesh"
NAMES = ["weft-nats", "weft-sealing-key", "weft-operator-token", "weft-webhook"]

Secret = dict[str, Any]


class StandIn:
    """An API server that knows Secrets."""

    def __init__(self, directory: Path) -> None:
        self.secrets: dict[str, Secret] = {}
        self.forbidden = False
        self.broken = b""
        """What it answers instead, with 500."""
        self._directory = directory
        self._pki = Pki()

    @property
    def credentials(self) -> Path:
        """What a pod finds at its place."""
        return self._directory / "serviceaccount"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[StandIn]:
        """Listen until the context is left; `environ` says where."""
        application = web.Application()
        application.router.add_post(f"/api/v1/namespaces/{NAMESPACE}/secrets", self._create)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0, ssl_context=self._tls())
        await site.start()
        self.port = runner.addresses[0][1]
        self._write_credentials()
        try:
            yield self
        finally:
            await runner.cleanup()

    @property
    def environ(self) -> dict[str, str]:
        """What a pod has in its environment."""
        return {"KUBERNETES_SERVICE_HOST": HOST, "KUBERNETES_SERVICE_PORT": str(self.port)}

    def access(self) -> PodAccess:
        """What a pod makes of both."""
        return PodAccess.of(self.environ, self.credentials)

    async def _create(self, request: web.Request) -> web.Response:
        if self.broken:
            return web.Response(status=500, body=self.broken)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized", "Unauthorized")
        if self.forbidden:
            return _status(403, "Forbidden", "secrets is forbidden: the service account cannot create")
        secret = await request.json()
        name = secret["metadata"]["name"]
        if name in self.secrets:
            return _status(409, "AlreadyExists", f'secrets "{name}" already exists')
        if any(base64.b64decode(each, validate=True) == b"" for each in secret["data"].values()):
            return _status(422, "Invalid", "data is empty")
        self.secrets[name] = secret
        return web.json_response(secret, status=201)

    def _tls(self) -> ssl.SSLContext:
        chain, key = self._pki.svid("")
        file = self._directory / "server.pem"
        file.write_bytes(chain + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _write_credentials(self) -> None:
        self.credentials.mkdir()
        (self.credentials / "ca.crt").write_bytes(self._pki.bundle().pem)
        (self.credentials / "token").write_text(f"{TOKEN}\n")
        (self.credentials / "namespace").write_text(NAMESPACE)


def _status(code: int, reason: str, message: str) -> web.Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
    return web.json_response({**status, "message": message}, status=code)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[StandIn]:
    async with StandIn(tmp_path).serving() as running:
        yield running


async def bootstrapped(credentials: Path, environ: dict[str, str]) -> tuple[int, str, str]:
    """The exit code of the command, and what it wrote."""
    program = (
        "import sys, pathlib; import weft.identity.pod_access as c; "
        "c.PodAccess.of.__func__.__defaults__ = (pathlib.Path(sys.argv[1]),); "
        "from weft.cli.main import run; sys.exit(run(['kubernetes', 'bootstrap']))"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(credentials)),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def test_all_keys_are_made_once(server: StandIn) -> None:
    code, output, errors = await bootstrapped(server.credentials, server.environ)
    assert (code, errors) == (ExitCode.OK, "")
    assert output == "".join(f"secret/{name} created\n" for name in NAMES)
    assert list(server.secrets) == NAMES
    before = json.dumps(server.secrets)
    code, output, errors = await bootstrapped(server.credentials, server.environ)
    assert (code, errors) == (ExitCode.OK, "")
    assert output == "".join(f"secret/{name} is there already\n" for name in NAMES)
    assert json.dumps(server.secrets) == before


async def test_what_is_missing_is_made_and_the_rest_stays(server: StandIn) -> None:
    kept = {"metadata": {"name": "weft-sealing-key"}}
    server.secrets["weft-sealing-key"] = kept
    async with InCluster(server.access()) as cluster:
        made = [await cluster.create_secret(each) for each in first_keys("weft", NAMESPACE)]
    assert made == [True, False, True, True]
    assert server.secrets["weft-sealing-key"] is kept


async def test_who_may_not_create_secrets_is_told_what_to_do(server: StandIn) -> None:
    server.forbidden = True
    async with InCluster(server.access()) as cluster:
        with pytest.raises(Denied, match=r"cannot create.*give the pod's service account a Role"):
            await cluster.create_secret(first_keys("weft", NAMESPACE)[0])


async def test_a_token_of_another_cluster_is_told_of(server: StandIn) -> None:
    (server.credentials / "token").write_text("of-another")
    async with InCluster(server.access()) as cluster:
        with pytest.raises(Unauthenticated, match="token of this cluster"):
            await cluster.create_secret(first_keys("weft", NAMESPACE)[0])


@pytest.mark.parametrize("answer", [b"[]", b"<html>", b'{"message": 5}'])
async def test_an_api_server_in_trouble_is_unavailable(server: StandIn, answer: bytes) -> None:
    server.broken = answer
    async with InCluster(server.access()) as cluster:
        with pytest.raises(Unavailable, match="answers 500"):
            await cluster.create_secret(first_keys("weft", NAMESPACE)[0])


async def test_an_endless_answer_is_not_read_to_its_end(server: StandIn) -> None:
    server.broken = b"x" * (MAX_ANSWER_BYTES + 1)
    async with InCluster(server.access()) as cluster:
        with pytest.raises(Unavailable, match="more than"):
            await cluster.create_secret(first_keys("weft", NAMESPACE)[0])


async def test_nothing_is_said_to_a_server_for_which_the_cluster_does_not_vouch(server: StandIn) -> None:
    (server.credentials / "ca.crt").write_bytes(Pki().bundle().pem)
    async with InCluster(server.access()) as cluster:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await cluster.create_secret(first_keys("weft", NAMESPACE)[0])
    assert not server.secrets


def test_outside_of_a_cluster_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="in a pod of a cluster only"):
        PodAccess.of({}, tmp_path)


def test_a_pod_without_a_token_is_told_what_is_missing(server: StandIn) -> None:
    (server.credentials / "token").unlink()
    with pytest.raises(InvalidRequest, match="token, which a pod has, cannot be read"):
        server.access()


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
async def test_a_real_api_server_takes_them_from_who_may_only_create_secrets(tmp_path: Path) -> None:
    async with AsyncExitStack() as ends:
        running = await ends.enter_async_context(kubernetes_server(tmp_path))
        client = await ends.enter_async_context(running.client())
        core, rbac = "/api/v1/namespaces", "/apis/rbac.authorization.k8s.io/v1/namespaces"
        for path, document in (
            (core, {"metadata": {"name": NAMESPACE}}),
            (f"{core}/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "weft-bootstrap"}}),
            (f"{rbac}/{NAMESPACE}/roles", _ROLE),
            (f"{rbac}/{NAMESPACE}/rolebindings", _BINDING),
        ):
            (await client.post(path, json=document)).raise_for_status()
        asked = await client.post(
            f"{core}/{NAMESPACE}/serviceaccounts/weft-bootstrap/token", json={"spec": {}}
        )
        credentials = tmp_path / "serviceaccount"
        credentials.mkdir()
        (credentials / "token").write_text(asked.raise_for_status().json()["status"]["token"])
        (credentials / "namespace").write_text(NAMESPACE)
        (credentials / "ca.crt").write_bytes((tmp_path / "certificates" / "apiserver.crt").read_bytes())
        environ = {
            "KUBERNETES_SERVICE_HOST": client.base_url.host,
            "KUBERNETES_SERVICE_PORT": str(client.base_url.port),
        }
        for outcome in ("created", "is there already"):
            code, output, errors = await bootstrapped(credentials, environ)
            assert (code, errors) == (ExitCode.OK, "")
            assert output == "".join(f"secret/{name} {outcome}\n" for name in NAMES)


_ROLE = {
    "metadata": {"name": "weft-bootstrap"},
    "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}],
}
_BINDING = {
    "metadata": {"name": "weft-bootstrap"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "weft-bootstrap"},
    "subjects": [{"kind": "ServiceAccount", "name": "weft-bootstrap", "namespace": NAMESPACE}],
}
