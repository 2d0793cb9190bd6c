"""Clusters that can be asked whose a service account token is: a real kube-apiserver, and a stand-in.

Both are held to the same tests (tests/integration/kubernetes/test_token_reviews.py).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import jwt
from aiohttp import web

from tests.cluster import Cluster
from tests.kubernetes_server import KubernetesServer
from tests.pki import Pki
from weft.controlplane.pods import AUDIENCE
from weft.identity.pod_access import PodAccess

HOST = "127.0.0.1"
OWN_NAMESPACE, OWN_ACCOUNT = "mesh", "weft-control"
"""As whom the control plane asks."""

_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_CORE = "/api/v1/namespaces"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_BINDINGS = f"{_RBAC}/clusterrolebindings"


class ReviewingCluster(Protocol):
    """What the tests ask of a cluster."""

    def access(self) -> PodAccess:
        """How the control plane's pod comes to its API."""
        ...

    async def run_pod(self, namespace: str, account: str, pod: str) -> None:
        """Have a pod with a service account."""
        ...

    async def delete_pod(self, namespace: str, pod: str) -> None:
        """Have it no more."""
        ...

    async def token(self, namespace: str, account: str, pod: str = "", audience: str = AUDIENCE) -> str:
        """A token of the service account, bound to a pod, or to none."""
        ...

    async def permit(self, reviews: bool) -> None:
        """Say whether the control plane may have tokens reviewed."""
        ...


@dataclass(frozen=True)
class RealCluster:
    """A kube-apiserver."""

    server: KubernetesServer
    client: httpx.AsyncClient
    directory: Path
    own_token: str
    known: set[str] = field(default_factory=set)

    @classmethod
    async def prepare(
        cls, server: KubernetesServer, client: httpx.AsyncClient, directory: Path
    ) -> RealCluster:
        """With the control plane's service account, which may have tokens reviewed."""
        role = {
            "metadata": {"name": OWN_ACCOUNT},
            "rules": [
                {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
            ],
        }
        (await client.post(f"{_RBAC}/clusterroles", json=role)).raise_for_status()
        cluster = cls(server, client, directory, "")
        await cluster._account(OWN_NAMESPACE, OWN_ACCOUNT)
        own = await cluster.token(OWN_NAMESPACE, OWN_ACCOUNT, audience="")
        cluster = cls(server, client, directory, own, cluster.known)
        await cluster.permit(reviews=True)
        return cluster

    def access(self) -> PodAccess:
        trust = ssl.create_default_context(cafile=str(self.directory / "certificates" / "apiserver.crt"))
        return PodAccess(str(self.client.base_url).rstrip("/"), self.own_token, trust, OWN_NAMESPACE)

    async def run_pod(self, namespace: str, account: str, pod: str) -> None:
        await self._account(namespace, account)
        spec = {"serviceAccountName": account, "containers": [{"name": "agent", "image": "none"}]}
        document = {"metadata": {"name": pod}, "spec": spec}
        (await self.client.post(f"{_CORE}/{namespace}/pods", json=document)).raise_for_status()

    async def delete_pod(self, namespace: str, pod: str) -> None:
        answer = await self.client.delete(f"{_CORE}/{namespace}/pods/{pod}", params={"gracePeriodSeconds": 0})
        answer.raise_for_status()

    async def token(self, namespace: str, account: str, pod: str = "", audience: str = AUDIENCE) -> str:
        spec: dict[str, Any] = {"audiences": [audience]} if audience else {}
        if pod:
            found = (await self.client.get(f"{_CORE}/{namespace}/pods/{pod}")).raise_for_status().json()
            uid = found["metadata"]["uid"]
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
        path = f"{_CORE}/{namespace}/serviceaccounts/{account}/token"
        made = (await self.client.post(path, json={"spec": spec})).raise_for_status().json()
        token: str = made["status"]["token"]
        return token

    async def permit(self, reviews: bool) -> None:
        if not reviews:
            (await self.client.delete(f"{_BINDINGS}/{OWN_ACCOUNT}")).raise_for_status()
            return
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": OWN_ACCOUNT}
        subject = {"kind": "ServiceAccount", "name": OWN_ACCOUNT, "namespace": OWN_NAMESPACE}
        document = {"metadata": {"name": OWN_ACCOUNT}, "roleRef": reference, "subjects": [subject]}
        (await self.client.post(_BINDINGS, json=document)).raise_for_status()

    async def _account(self, namespace: str, account: str) -> None:
        for path, name in ((_CORE, namespace), (f"{_CORE}/{namespace}/serviceaccounts", account)):
            if f"{path}/{name}" not in self.known:
                (await self.client.post(path, json={"metadata": {"name": name}})).raise_for_status()
                self.known.add(f"{path}/{name}")


class StandInCluster:
    """Signs tokens and reviews them, as far as such an API server does."""

    def __init__(self, directory: Path) -> None:
        self.pods: set[tuple[str, str]] = set()
        self.permitted = True
        self.instead: bytes | None = None
        """What it answers in place of a review, with 201."""
        self.answering = asyncio.Event()
        """While it is not set, questions are taken and not answered."""
        self.answering.set()
        self.asked = 0
        self.most_at_once = 0
        """Questions that waited for their answers together."""
        self._waiting = 0
        self._signer = Cluster(directory)
        self._pki = Pki()
        self._chain = directory / "server.pem"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[StandInCluster]:
        """Listen until the context is left."""
        application = web.Application()
        application.router.add_post(_REVIEWS, self._review)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        chain, key = self._pki.svid("")
        self._chain.write_bytes(chain + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._chain)
        await web.TCPSite(runner, HOST, 0, ssl_context=context).start()
        self._port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    def access(self) -> PodAccess:
        trust = ssl.create_default_context(cadata=self._pki.bundle().pem.decode())
        return PodAccess(f"https://{HOST}:{self._port}", "of-the-control-plane", trust, OWN_NAMESPACE)

    async def run_pod(self, namespace: str, account: str, pod: str) -> None:  # noqa: ARG002
        self.pods.add((namespace, pod))

    async def delete_pod(self, namespace: str, pod: str) -> None:
        self.pods.remove((namespace, pod))

    async def token(self, namespace: str, account: str, pod: str = "", audience: str = AUDIENCE) -> str:
        bound: dict[str, Any] = {"namespace": namespace, "serviceaccount": {"name": account, "uid": "2"}}
        if pod:
            bound["pod"] = {"name": pod, "uid": "1"}
        subject = f"system:serviceaccount:{namespace}:{account}"
        changes: dict[str, Any] = {"aud": [audience], "sub": subject, "kubernetes.io": bound}
        return self._signer.token(**changes)

    async def permit(self, reviews: bool) -> None:
        self.permitted = reviews

    async def _review(self, request: web.Request) -> web.Response:
        self.asked += 1
        self._waiting += 1
        self.most_at_once = max(self.most_at_once, self._waiting)
        await self.answering.wait()
        self._waiting -= 1
        if request.headers.get("authorization") != "Bearer of-the-control-plane" or not self.permitted:
            refusal = {"kind": "Status", "reason": "Forbidden", "message": "tokenreviews is forbidden"}
            return web.json_response(refusal, status=403)
        if self.instead is not None:
            return web.Response(status=201, body=self.instead)
        review = await request.json()
        return web.json_response({**review, "status": self._status(**review["spec"])}, status=201)

    def _status(self, token: str, audiences: list[str]) -> dict[str, Any]:
        try:
            claims = jwt.decode(token, self._signer.key.public_key(), ["RS256"], audience=audiences)
        except jwt.InvalidTokenError:
            return {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
        bound, extra = claims["kubernetes.io"], {}
        if "pod" in bound:
            name = bound["pod"]["name"]
            if (bound["namespace"], name) not in self.pods:
                return {"user": {}, "error": "service account token has been invalidated"}
            extra = {
                "authentication.kubernetes.io/pod-name": [name],
                "authentication.kubernetes.io/pod-uid": [bound["pod"]["uid"]],
            }
        groups = ["system:serviceaccounts", "system:authenticated"]
        return {
            "authenticated": True,
            "user": {"username": claims["sub"], "uid": "2", "groups": groups, "extra": extra},
            "audiences": [each for each in audiences if each in claims["aud"]],
        }
