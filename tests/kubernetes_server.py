"""A real kube-apiserver with its etcd, on loopback, for tests.

`KUBEBUILDER_ASSETS` names the directory in which both programs are, as for others who test against them.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.server_process import HOST, ServerProcess
from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.ports import reserve_port

_TOKEN = "tests-only"

Document = dict[str, Any]


def missing() -> str | None:
    """Why it cannot be started here; None if it can."""
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    if not assets:
        return "KUBEBUILDER_ASSETS names no directory with kube-apiserver and etcd"
    lacking = [name for name in ("kube-apiserver", "etcd") if not (Path(assets) / name).is_file()]
    return f"{' and '.join(lacking)}: not in KUBEBUILDER_ASSETS={assets}" if lacking else None


class _Program(ServerProcess):
    """A program of KUBEBUILDER_ASSETS, which writes what it has to say into a file."""

    start_limit = 200.0

    async def _launch(self) -> Child:
        program = Path(os.environ["KUBEBUILDER_ASSETS"]) / self.program
        with self._log.open("ab") as log:
            return await spawn(
                [str(program), *self._arguments()],
                guard=self._guard,
                environ=os.environ,
                stdout=log.fileno(),
                stderr=asyncio.subprocess.STDOUT,
                directory=self._directory,
            )

    def _arguments(self) -> Sequence[str]:
        raise NotImplementedError

    @property
    def _log(self) -> Path:
        return self._directory / f"{self.program}.log"

    def _log_text(self) -> str:
        return self._log.read_text()[-20_000:] if self._log.exists() else ""


class _Etcd(_Program):
    program = "etcd"

    def __init__(self, directory: Path, guard: Guard) -> None:
        super().__init__(directory, guard)
        with reserve_port(HOST) as clients, reserve_port(HOST) as peers:
            self._ports = clients.port, peers.port

    @property
    def url(self) -> str:
        """Where the API server connects."""
        return f"http://{HOST}:{self._ports[0]}"

    def _arguments(self) -> Sequence[str]:
        peers = f"http://{HOST}:{self._ports[1]}"
        return (
            *("--data-dir", str(self._directory / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"default={peers}"),
        )

    async def _takes_clients(self) -> bool:
        return await _answers(httpx.AsyncClient(base_url=self.url), "/health")


class KubernetesServer(_Program):
    """A kube-apiserver in which everything is allowed to whoever has its token."""

    program = "kube-apiserver"

    def __init__(self, directory: Path, guard: Guard, etcd: str) -> None:
        """`etcd` is the URL of the etcd that holds what it knows."""
        super().__init__(directory, guard)
        self._etcd = etcd
        with reserve_port(HOST) as reserved:
            self._port = reserved.port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"https://{HOST}:{self._port}"

    @property
    def token(self) -> str:
        """With which everything is allowed."""
        return _TOKEN

    def roots(self) -> str:
        """By which a client knows it (PEM)."""
        return (self._certificates / "apiserver.crt").read_text()

    def trust(self) -> ssl.SSLContext:
        """By which a client knows it."""
        trusted = ssl.create_default_context(cafile=str(self._certificates / "apiserver.crt"))
        trusted.check_hostname = False
        return trusted

    def client(self) -> httpx.AsyncClient:
        """A client that may do everything; to be closed by whoever asked for it."""
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {_TOKEN}"},
            verify=self.trust(),
            timeout=60.0,
        )

    def write_credentials(self) -> None:
        """What it reads when it starts: who may come, and the key that signs service accounts' tokens."""
        key = ec.generate_private_key(ec.SECP256R1())
        self._key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        self._tokens.write_text(f'{_TOKEN},tests,tests,"system:masters"\n')

    @property
    def _certificates(self) -> Path:
        return self._directory / "certificates"

    @property
    def _key(self) -> Path:
        return self._directory / "service-accounts.pem"

    @property
    def _tokens(self) -> Path:
        return self._directory / "tokens.csv"

    def _arguments(self) -> Sequence[str]:
        return (
            *("--etcd-servers", self._etcd),
            *("--bind-address", HOST, "--advertise-address", HOST, "--secure-port", str(self._port)),
            *("--cert-dir", str(self._certificates), "--token-auth-file", str(self._tokens)),
            *("--service-account-issuer", f"https://{HOST}:{self._port}"),
            *("--service-account-key-file", str(self._key)),
            *("--service-account-signing-key-file", str(self._key)),
            *("--service-cluster-ip-range", "10.0.0.0/24", "--endpoint-reconciler-type", "none"),
            *("--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount"),
        )

    async def _takes_clients(self) -> bool:
        if not (self._certificates / "apiserver.crt").exists():
            return False
        return await _answers(self.client(), "/readyz")


@asynccontextmanager
async def kubernetes_server(directory: Path) -> AsyncIterator[KubernetesServer]:
    """A running kube-apiserver that keeps all it has in `directory`; gone when the context is left."""
    async with Guard(grace=0.1) as guard:
        etcd = _Etcd(directory, guard)
        server = KubernetesServer(directory, guard, etcd.url)
        server.write_credentials()
        try:
            await etcd.start()
            await server.start()
            yield server
        finally:
            await server.kill()
            await etcd.kill()


async def _answers(client: httpx.AsyncClient, path: str) -> bool:
    async with client:
        try:
            return (await client.get(path)).status_code == 200
        except (httpx.TransportError, ssl.SSLError):
            return False
