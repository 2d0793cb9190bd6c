"""A client of a cluster's API: objects as JSON types, with limits on time and size for every answer."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Self

import httpx

from weft.aio.half_open import Connecting
from weft.errors import Conflict, Denied, InvalidRequest, MeshError, NotFound, Unauthenticated, Unavailable
from weft.identity.pod_access import PodAccess, pod_token
from weft.kubernetes.controller.kinds import ClusterKind, Document, Key

TIMEOUT: Final = 30.0
"""Seconds the API server has to answer."""

WATCH_SECONDS: Final = 120
"""After how many seconds a watch ends, to begin anew where it was."""

_WATCH_TIMEOUT = WATCH_SECONDS + 30.0
PAGE: Final = 250
"""Objects that a list asks for at once."""
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_LINE_BYTES: Final = 8 * 1024 * 1024
"""Of one change. etcd takes objects of 1.5 MiB."""
_MAX_MESSAGE = 2000  # characters of what the API server says is wrong

MANAGER: Final = "weft"
"""Who owns the fields that are applied."""

_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML


class Expired(Unavailable):
    """A watch cannot go on from where it was: list anew."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects as they stood, and where a watch goes on from there."""

    items: list[Document]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch tells."""

    type: str
    """ADDED, MODIFIED, DELETED, or BOOKMARK, of which nothing but the resourceVersion counts."""
    object: Document

    @property
    def resource_version(self) -> str:
        """Where a watch goes on after this."""
        return str(self.object["metadata"]["resourceVersion"])


class Cluster:
    """The API server. Use as an async context manager.

    Every method raises Unavailable if the API server cannot be reached or is in trouble, Unauthenticated or
    Denied if it does not let this process, InvalidRequest if it does not take what it is given.
    """

    def __init__(self, url: str, *, trust: ssl.SSLContext | bool, token: Callable[[], str]) -> None:
        """`token` gives what is shown with each request: Kubernetes replaces it every hour or so.

        Where it is empty nothing is shown.
        """
        self.url = url
        self._token = token
        self._http = httpx.AsyncClient(
            base_url=url,
            verify=trust,
            timeout=TIMEOUT,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    @classmethod
    def of_pod(cls, environ: Mapping[str, str]) -> Self:
        """That of the cluster in which this process is a pod. Raises InvalidRequest if it is in none."""
        access = PodAccess.of(environ)
        return cls(access.url, trust=access.trust, token=pod_token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def get(self, kind: ClusterKind, key: Key) -> Document | None:
        """One object; None if there is none, or no such kind."""
        try:
            return await self._ask("GET", kind.path(key.namespace, key.name), f"{kind.kind} {key}")
        except NotFound:
            return None

    async def read(self, path: str) -> Document:
        """What the API server tells of itself: `/version`, `/apis`. Raises NotFound."""
        return await self._ask("GET", path, path)

    async def list(
        self,
        kind: ClusterKind,
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        page: int = PAGE,
    ) -> Listing:
        """All objects of a kind, or those of a namespace, or with labels or fields (selectors as kubectl's).

        They are asked for `page` at once.
        Raises NotFound if the cluster has no such kind.
        """
        chosen = {"labelSelector": labels, "fieldSelector": fields}
        query = {"limit": str(page), **{name: value for name, value in chosen.items() if value}}
        items: list[Document] = []
        while True:
            answer = await self._ask("GET", kind.path(namespace), f"the list of {kind.plural}", query=query)
            items += (_with_type(each, kind) for each in answer.get("items") or ())
            metadata = answer.get("metadata") or {}
            if not metadata.get("continue"):
                return Listing(items, str(metadata.get("resourceVersion", "")))
            query["continue"] = metadata["continue"]

    async def create(self, kind: ClusterKind, document: Document) -> Document:
        """Create an object. Raises Conflict if there is one of its name, NotFound if its namespace is not."""
        metadata = document["metadata"]
        what = f"{kind.kind} {metadata['name']}"
        return await self._ask("POST", kind.path(metadata.get("namespace", "")), what, document)

    async def replace(self, kind: ClusterKind, document: Document) -> Document:
        """Write an object anew; with a resourceVersion in it, only at that one (else Conflict).

        Raises NotFound.
        """
        metadata = document["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"])
        return await self._ask("PUT", path, f"{kind.kind} {metadata['name']}", document)

    async def merge(self, kind: ClusterKind, key: Key, patch: Document, *, subresource: str = "") -> Document:
        """Change an object by a JSON merge patch (RFC 7386). Raises NotFound.

        Raises Conflict if the patch has a `resourceVersion` that is not the object's.
        """
        path = kind.path(key.namespace, key.name, subresource)
        return await self._ask("PATCH", path, f"{kind.kind} {key}", patch, media_type=_MERGE)

    async def apply(self, kind: ClusterKind, document: Document, *, manager: str = MANAGER) -> Document:
        """Have an object be as `document` says, made if need be; what others have set beside it stays.

        Server-side apply: fields that `manager` applied before, and does not now, are removed. Raises
        NotFound if there is no such namespace.
        """
        metadata = document["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"])
        query = {"fieldManager": manager, "force": "true"}
        what = f"{kind.kind} {metadata['name']}"
        return await self._ask("PATCH", path, what, document, query=query, media_type=_APPLY)

    async def delete(self, kind: ClusterKind, key: Key, *, uid: str = "", resource_version: str = "") -> None:
        """Delete an object; if given only that with `uid`, and at `resource_version` (else Conflict).

        One that is not there is no error. What depends on it goes in the background.
        """
        conditions = {"uid": uid, "resourceVersion": resource_version}
        options: Document = {"propagationPolicy": "Background"}
        if any(conditions.values()):
            options["preconditions"] = {name: value for name, value in conditions.items() if value}
        try:
            await self._ask("DELETE", kind.path(key.namespace, key.name), f"{kind.kind} {key}", options)
        except NotFound:
            return

    async def watch(
        self, kind: ClusterKind, resource_version: str, *, namespace: str = "", labels: str = ""
    ) -> AsyncGenerator[Change, None]:
        """What changes from `resource_version` on, for at most WATCH_SECONDS.

        Raises Expired if it cannot be told from there on, NotFound if there is no such kind (any more).
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
            **({"labelSelector": labels} if labels else {}),
        }
        limits = httpx.Timeout(TIMEOUT, read=_WATCH_TIMEOUT)
        connecting = Connecting()
        what = f"the watch of {kind.plural}"
        request = self._http.build_request(
            "GET",
            kind.path(namespace),
            params=query,
            headers=self._headers(),
            timeout=limits,
            extensions=connecting.extensions,
        )
        try:
            response = await connecting.finish(self._http.send(request, stream=True), httpx.Response.aclose)
            async with aclosing(response):
                if response.is_error:
                    raise _error(response.status_code, await self._content(response), what)
                async with aclosing(_lines(response)) as lines:
                    async for line in lines:
                        yield _change(line, kind, what)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    async def _ask(
        self,
        method: str,
        path: str,
        what: str,
        document: Document | None = None,
        *,
        query: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> Document:
        connecting = Connecting()
        request = self._http.build_request(
            method,
            path,
            params=dict(query or {}),
            content=None if document is None else json.dumps(document).encode(),
            headers=self._headers() | ({} if document is None else {"content-type": media_type}),
            extensions=connecting.extensions,
        )
        try:
            status, content = await connecting.finish(self._answer(request))
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._unreachable(error) from error
        if status >= 300:
            raise _error(status, content, what)
        return _object(content, what)

    async def _answer(self, request: httpx.Request) -> tuple[int, bytes]:
        async with asyncio.timeout(TIMEOUT):
            response = await self._http.send(request, stream=True)
            async with aclosing(response):
                return response.status_code, await self._content(response)

    def _headers(self) -> dict[str, str]:
        token = self._token()
        return {"authorization": f"Bearer {token}"} if token else {}

    async def _content(self, response: httpx.Response) -> bytes:
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise Unavailable(f"{self.url} answers with more than {MAX_ANSWER_BYTES} bytes")
        return bytes(content)

    def _unreachable(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"the cluster's API at {self.url} does not answer: {str(error) or type(error).__name__}"
        )


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise Unavailable(f"a change that {response.url} tells is larger than {MAX_LINE_BYTES} bytes")


def _change(line: bytes, kind: ClusterKind, what: str) -> Change:
    told = _object(line, what)
    document = told.get("object")
    if not isinstance(document, dict):
        raise Unavailable(f"{what} tells of no object")
    if told.get("type") == "ERROR":
        raise _error(int(document.get("code") or 500), json.dumps(document).encode(), what)
    return Change(str(told.get("type")), _with_type(document, kind))


def _with_type(document: Document, kind: ClusterKind) -> Document:
    """An object of a list, which does not say itself what it is."""
    return {**document, "apiVersion": kind.api_version, "kind": kind.kind}


def _object(content: bytes, what: str) -> Document:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise Unavailable(f"the API server's answer about {what} is not JSON") from error
    if not isinstance(found, dict):
        raise Unavailable(f"the API server's answer about {what} is not a JSON object")
    return found


def _error(status: int, content: bytes, what: str) -> MeshError:
    message = _message(content)
    said = f"{what}: the API server answers {status}" + (f" ({message})" if message else "")
    kinds: Mapping[int, type[MeshError]] = {
        401: Unauthenticated,
        403: Denied,
        404: NotFound,
        409: Conflict,
        410: Expired,
        429: Unavailable,
    }
    return kinds.get(status, InvalidRequest if 400 <= status < 500 else Unavailable)(said)


def _message(content: bytes) -> str:
    try:
        found: Any = json.loads(content)
    except ValueError:
        return ""
    return str(found.get("message") or "")[:_MAX_MESSAGE] if isinstance(found, dict) else ""
