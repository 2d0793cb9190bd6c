"""A client of the control plane's API."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from weft.aio.half_open import Connecting
from weft.errors import (
    FieldProblem,
    InvalidRequest,
    InvalidResource,
    MeshError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from weft.identity.bundle import TrustBundles
from weft.local.server_trust import server_trust
from weft.model.operator import Scope
from weft.sdk.problem import read_error
from weft.sdk.sse import Event, EventDecoder

TIMEOUT = 10.0
"""Seconds the control plane has to answer."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024

_IDLE_TIMEOUT = 60.0  # a watch has a heartbeat every 15 s
_OUT_OF_TIME = ("certificate is not yet valid", "certificate has expired")  # as OpenSSL says it
_PAGE = 500
_MAX_PROBLEMS = 1000
_WHERE_TOKENS_ARE = (
    "the token is taken from --token-file, or that of the mesh here, or else WEFT_TOKEN_FILE or WEFT_TOKEN"
)

Parameters = Sequence[tuple[str, str]]


class ControlApi:
    """The API at one address. Use as an async context manager.

    Every method raises Unavailable if the control plane cannot be reached or does not answer in time, and
    else the MeshError that it answers with.
    """

    def __init__(self, url: str, *, token: str | None = None, roots: Path | bytes | None = None) -> None:
        """`url` is as in `https://127.0.0.1:7400`.

        `token` says who asks. The server is believed if `roots` (PEM, or a file of it that is followed)
        vouch for it; without them, the roots of this machine. Raises InvalidRequest where a token would
        travel in plain text, Unauthenticated if the roots are none.
        """
        if token is not None and not url.startswith("https:"):
            raise InvalidRequest(f"a token is not sent in plain text: use https for {url}")
        self.url = url
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=TIMEOUT,
            headers={} if token is None else {"authorization": f"Bearer {token}"},
            # Never used over plain HTTP; the default would read all root certificates of the machine.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if url.startswith("http:")
            else server_trust(roots),
            # HTTP_PROXY is not meant for the control plane: under a sidecar it is the sidecar itself.
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End its connections. It asks nothing after that."""
        await self._http.aclose()

    async def ready(self) -> bool:
        """Whether the control plane serves. Raises Unauthenticated if it does not take the token."""
        try:
            await self._fetch("GET", "/readyz")
        except Unauthenticated:
            raise
        except MeshError:
            return False
        return True

    async def settled(self) -> bool:
        """Whether every sidecar has taken over all that the control plane knows; not if that is silent."""
        try:
            return (await self.ask("GET", "/v1/sidecars"))["settled"] is True
        except Unavailable:
            return False

    async def apply(self, manifest: str, file: str, *, dry_run: bool = False) -> list[dict[str, Any]]:
        """Apply a manifest, all of it or nothing: what became of each resource (kind, name, outcome).

        Raises InvalidResource, with file, line and field, or Conflict.
        """
        body = {"manifest": manifest, "file": file, "dryRun": dry_run}
        return items_in(await self.ask("POST", "/v1/resources", body), "results")

    async def diff(self, manifest: str, file: str) -> list[dict[str, Any]]:
        """What applying a manifest would change (kind, name, before, after; YAML). Raises InvalidResource."""
        return items_in(
            await self.ask("POST", "/v1/diff", {"manifest": manifest, "file": file}), "differences"
        )

    async def resources(self, kind: str) -> list[dict[str, Any]]:
        """All resources of a kind."""
        return items_in(await self.ask("GET", f"/v1/resources/{segment(kind)}"), "items")

    async def resource(self, kind: str, name: str) -> dict[str, Any]:
        """One resource. Raises NotFound."""
        return document_in(await self.ask("GET", f"/v1/resources/{segment(kind)}/{segment(name)}"))

    async def delete(self, kind: str, name: str) -> None:
        """Remove one resource. Raises NotFound."""
        await self.ask("DELETE", f"/v1/resources/{segment(kind)}/{segment(name)}")

    async def can(self, question: Mapping[str, str]) -> dict[str, Any]:
        """Whether somebody may do something, as `weft can` asks it. Raises InvalidRequest."""
        return document_in(await self.ask("POST", "/v1/can", question))

    async def agents(self, parameters: Parameters, *, limit: int | None = None) -> list[dict[str, Any]]:
        """The instances that match the API's query `parameters`, at most `limit`, by type and id."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            query = [*parameters, ("limit", str(size)), *([("after", after)] if after else [])]
            page = document_in(await self.ask("GET", "/v1/agents", query=query))
            found += items_in(page, "items")
            after = page.get("next") or ""
            if not after or (limit is not None and len(found) >= limit):
                return found

    async def agent(self, agent_type: str, instance: str) -> dict[str, Any]:
        """One instance, with the state of its sidecar's configuration. Raises NotFound."""
        return document_in(await self.ask("GET", f"/v1/agents/{segment(agent_type)}/{segment(instance)}"))

    async def drain(self, agent_type: str, instance: str) -> None:
        """Have an instance leave. Raises NotFound, TimedOut if its sidecar does not begin."""
        await self.ask("POST", f"/v1/agents/{segment(agent_type)}/{segment(instance)}/drain")

    async def cards(self, parameters: Parameters) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
        """Agents whose A2A cards match the API's query `parameters`, and types whose could not be read."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            query = [*parameters, *([("after", after)] if after else [])]
            page = document_in(await self.ask("GET", "/v1/cards", query=query))
            found += items_in(page, "items")
            after = page.get("next") or ""
            if not after:
                return found, page.get("unread") or {}

    async def card(self, agent_type: str) -> dict[str, Any]:
        """An agent type's A2A card, with what is said of it. Raises NotFound."""
        return document_in(await self.ask("GET", f"/v1/cards/{segment(agent_type)}"))

    async def make_token(self, name: str, scope: Scope, lifetime: float) -> dict[str, Any]:
        """A new token (`token`, told nowhere else), good for `lifetime` seconds. Raises Conflict."""
        body = {"name": name, "scope": scope, "expiresIn": lifetime}
        return document_in(await self.ask("POST", "/v1/tokens", body))

    async def tokens(self) -> list[dict[str, Any]]:
        """What is known of the operators' tokens, by name."""
        return items_in(await self.ask("GET", "/v1/tokens"), "items")

    async def revoke_token(self, name: str) -> None:
        """Make a token worthless. Raises NotFound."""
        await self.ask("DELETE", f"/v1/tokens/{segment(name)}")

    async def join_token(
        self, agent_type: str | None, instance: str, labels: Mapping[str, str], lifetime: float | None = None
    ) -> str:
        """A token with which one process can get one identity, once; `lifetime` is in seconds."""
        body: dict[str, Any] = {"type": agent_type, "instance": instance, "labels": dict(labels)}
        body |= {} if lifetime is None else {"expiresIn": lifetime}
        return str(document_in(await self.ask("POST", "/v1/join-tokens", body)).get("token", ""))

    async def identities(self) -> list[dict[str, Any]]:
        """Every identity that is held, by SPIFFE ID."""
        return items_in(await self.ask("GET", "/v1/identities"), "items")

    async def authority(self) -> dict[str, Any]:
        """The certificate authority, and where its rotation stands."""
        return document_in(await self.ask("GET", "/v1/authority"))

    async def rotate(self, level: str) -> dict[str, Any]:
        """Replace one of the authority's levels. Raises Conflict if that is under way."""
        return document_in(await self.ask("POST", "/v1/authority/rotations", {"level": level}))

    async def revoke(self, spiffe_id: str, reason: str) -> None:
        """Take an identity back."""
        await self.ask("POST", "/v1/revocations", {"spiffeId": spiffe_id, "reason": reason})

    async def restore(self, spiffe_id: str) -> None:
        """Undo a revocation. Raises NotFound."""
        await self.ask("DELETE", "/v1/revocations", query=[("spiffe_id", spiffe_id)])

    async def trust_bundles(self) -> TrustBundles:
        """What members of the mesh trust."""
        return TrustBundles.from_json(await self._fetch("GET", "/v1/trust-bundles"))

    async def federate(self, trust_domain: str, pem: str) -> None:
        """Believe roots (PEM) for the names of another trust domain."""
        await self.ask("PUT", f"/v1/trust-bundles/{segment(trust_domain)}", {"pem": pem})

    async def unfederate(self, trust_domain: str) -> None:
        """Believe nobody of another trust domain any more. Raises NotFound."""
        await self.ask("DELETE", f"/v1/trust-bundles/{segment(trust_domain)}")

    async def audit(self, limit: int) -> list[dict[str, Any]]:
        """The last records of the audit, at most `limit`, the newest last."""
        return items_in(await self.ask("GET", "/v1/audit", query=[("limit", str(limit))]), "items")

    async def watch(self, path: str, query: Parameters = ()) -> AsyncGenerator[Event, None]:
        """The events of a watch: `added`, `changed`, `removed`, and `synced` after those there already were.

        It ends when the control plane ends it; Unavailable is raised when it breaks.
        """
        async with self.stream(path, [*query, ("watch", "true")]) as events:
            async for event in events:
                yield event

    @asynccontextmanager
    async def stream(self, path: str, query: Parameters = ()) -> AsyncIterator[AsyncIterator[Event]]:
        """The Server-Sent Events at `path`, which end when the control plane ends them.

        Entering it raises what every method raises; so does reading on, with Unavailable when it breaks.
        """
        connecting = Connecting()
        request = self._http.build_request(
            "GET",
            path,
            params=list(query),
            headers={"accept": "text/event-stream"},
            extensions=connecting.extensions,
        )
        request.extensions["timeout"] = httpx.Timeout(TIMEOUT, read=_IDLE_TIMEOUT).as_dict()
        try:
            response = await connecting.finish(self._http.send(request, stream=True), httpx.Response.aclose)
            async with aclosing(response):
                if response.is_error:
                    raise _error(self.url, response, await _body(response))
                async with aclosing(self._events(response)) as events:
                    yield events
        except httpx.TransportError as error:
            raise _unreachable(self.url, error) from error

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Parameters = (),
        timeout: float = TIMEOUT,
    ) -> Any:
        """What the API answers, as JSON types; None if nothing. `timeout` is in seconds."""
        content = await self._fetch(method, path, body, query=query, timeout=timeout)
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise Unavailable(f"{self.url} does not answer as a control plane does: {error}") from error

    async def text(self, path: str, *, query: Parameters = (), timeout: float = TIMEOUT) -> str:
        """What the API answers where that is not JSON. `timeout` is in seconds."""
        return (await self._fetch("GET", path, query=query, timeout=timeout)).decode(errors="replace")

    async def _events(self, response: httpx.Response) -> AsyncGenerator[Event, None]:
        decoder = EventDecoder()
        try:
            async for chunk in response.aiter_raw():
                for event in decoder.feed(chunk):
                    yield event
        except (httpx.TransportError, ValueError) as error:
            raise _unreachable(self.url, error) from error

    async def _fetch(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Parameters = (),
        timeout: float = TIMEOUT,
    ) -> bytes:
        connecting = Connecting()
        request = self._http.build_request(
            method,
            path,
            params=list(query) or None,
            json=body,
            timeout=httpx.Timeout(TIMEOUT, read=timeout),
            extensions=connecting.extensions,
        )
        try:
            response, content = await connecting.finish(self._answer(request, timeout))
        except (httpx.TransportError, TimeoutError) as error:
            raise _unreachable(self.url, error) from error
        if response.is_error:
            raise _error(self.url, response, content)
        return content

    async def _answer(self, request: httpx.Request, timeout: float) -> tuple[httpx.Response, bytes]:
        async with asyncio.timeout(timeout):
            response = await self._http.send(request, stream=True)
            async with aclosing(response):
                return response, await _body(response)


async def _body(response: httpx.Response) -> bytes:
    parts, size = [], 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise Unavailable(f"{response.url} answers with more than {MAX_ANSWER_BYTES} bytes")
        parts.append(chunk)
    return b"".join(parts)


def segment(name: str) -> str:
    """A name as one segment of a path; one that is only dots would be taken for a step. Raises NotFound."""
    if not name.strip("."):
        raise NotFound(f"there is nothing of the name {name!r}")
    return quote(name, safe="")


def items_in(answer: Any, member: str) -> list[dict[str, Any]]:
    """The list of objects that an answer has in `member`. Raises Unavailable if it has none."""
    items = document_in(answer).get(member)
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        raise Unavailable(f"the control plane's answer has no list of {member}")
    return items


def document_in(answer: Any) -> dict[str, Any]:
    """An answer that is an object. Raises Unavailable if it is none."""
    if not isinstance(answer, dict):
        raise Unavailable("the control plane's answer is not a JSON object")
    return answer


def _error(url: str, response: httpx.Response, content: bytes) -> MeshError:
    if response.headers.get("x-weft-error") == InvalidResource.code:
        problems = _field_problems(content)
        if problems:
            return InvalidResource(problems)
    if "x-weft-error" not in response.headers:
        return Unavailable(f"{url} is not Weft's control plane: it answers {response.status_code}")
    error = read_error(url, response.status_code, response.headers, content)
    if isinstance(error, Unauthenticated):
        return Unauthenticated(f"{error.detail}; {_WHERE_TOKENS_ARE}")
    return error


def _field_problems(content: bytes) -> list[FieldProblem]:
    try:
        errors = json.loads(content)["errors"]
        return [
            FieldProblem(str(each["message"]), str(each["field"]), str(each["file"]), int(each["line"]))
            for each in errors[:_MAX_PROBLEMS]
        ]
    except (ValueError, KeyError, TypeError):
        return []


def _unreachable(url: str, error: Exception) -> Unavailable:
    reason = str(error) or type(error).__name__
    if any(each in reason for each in _OUT_OF_TIME):
        return Unavailable(
            f"the certificate of the control plane at {url} is not valid now ({reason}): see whether "
            "the clock of this machine is right, and that of the control plane's"
        )
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return Unavailable(
            f"nobody vouches for what answers at {url} as the control plane ({reason}): name the mesh's "
            "roots with --ca-file or WEFT_CA_FILE (`weft identity bundle` prints them)"
        )
    return Unavailable(
        f"the control plane at {url} does not answer ({reason}): is it running? `weft up` starts a mesh"
    )
