"""A stand-in for kube-apiserver: keeps, versions and watches objects like the real one, as far as Weft asks.

It is held to the suites that ask the real one. What it does not do: server-side apply merges maps, and takes
lists as a whole; nobody is refused anything but for the lack of a token; only custom resources have schemas.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.kubernetes_admission import Denied, admission_request, admitted
from tests.kubernetes_documents import Document, refusals

HOST = "127.0.0.1"
TOKEN = "of-the-tests"

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
_BUILT_IN = {
    **dict.fromkeys(
        ("/v1/configmaps", "/v1/secrets", "/v1/services", "/v1/serviceaccounts", "/v1/pods"), True
    ),
    **dict.fromkeys(("apps/v1/deployments", "apps/v1/statefulsets", "policy/v1/poddisruptionbudgets"), True),
    **dict.fromkeys(("autoscaling/v2/horizontalpodautoscalers", "discovery.k8s.io/v1/endpointslices"), True),
    **dict.fromkeys(("coordination.k8s.io/v1/leases", "events.k8s.io/v1/events"), True),
    "/v1/namespaces": False,
    "apiextensions.k8s.io/v1/customresourcedefinitions": False,
    "admissionregistration.k8s.io/v1/mutatingwebhookconfigurations": False,
    "admissionregistration.k8s.io/v1/validatingwebhookconfigurations": False,
}
"""The kinds, and whether they are in namespaces."""
_WITH_STATUS = {"apps/v1/deployments", "apps/v1/statefulsets", "/v1/services", "/v1/namespaces", "/v1/pods"}

Id = tuple[str, str]
"""Namespace and name."""


class Refusal(Exception):
    """What the API server answers instead."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.document = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": reason,
            "message": message,
            "code": code,
        }
        self.code = code


@dataclass
class _Kind:
    plural: str
    namespaced: bool
    definition: Document | None = None
    objects: dict[Id, Document] = field(default_factory=dict)
    applied: dict[tuple[Id, str], Document] = field(default_factory=dict)
    """What each manager applied last."""

    @property
    def has_status(self) -> bool:
        return self.definition is not None or self.plural in _WITH_STATUS


@dataclass(frozen=True)
class _Told:
    version: int
    kind: str
    type: str
    object: Document


class KubernetesStandIn:
    """The objects of a cluster. Serve them with `serving`."""

    def __init__(self) -> None:
        self.url = ""
        self._kinds = {path: _Kind(path, namespaced) for path, namespaced in _BUILT_IN.items()}
        self._version = 0
        self._history: list[_Told] = []
        self._compacted = 0
        self._changed = asyncio.Event()
        self._closing = False
        self.break_off: set[asyncio.Task[Any]] = set()
        """The watches that go on."""
        for name in ("default", "kube-system"):
            self._create(self._kinds["/v1/namespaces"], "", {"metadata": {"name": name}})

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[KubernetesStandIn]:
        """Listen until the context is left; with `tls` as a real one does."""
        application = web.Application(client_max_size=4 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0, ssl_context=tls).start()
        self.url = f"http{'s' if tls else ''}://{HOST}:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self.end_watches()
            await runner.cleanup()

    def compact(self) -> None:
        """Forget what happened so far, as etcd does: watches cannot go on from before."""
        self._compacted, self._history = self._version, []

    def end_watches(self) -> None:
        """Break off every watch, in the middle of its answer."""
        for task in self.break_off:
            task.cancel()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            _check_token(request)
            if request.path in {"/version", "/apis"}:
                return web.json_response(self._of_itself(request.path))
            kind, at, subresource = self._asked_for(request)
            if request.query.get("watch") == "true":
                return await self._watch(request, kind, at[0])
            body = await request.json() if request.can_read_body else {}
            body, told = await self._admitted(request, kind, at, subresource, body)
            done = self._done(request, kind, at, subresource, body)
            warnings = [("warning", f"299 - {json.dumps(each)}") for each in told]
            return web.json_response(done, status=201 if request.method == "POST" else 200, headers=warnings)
        except Refusal as refusal:
            return web.json_response(refusal.document, status=refusal.code)
        except Denied as denied:
            return web.json_response(denied.status, status=denied.status["code"])

    def _of_itself(self, path: str) -> Document:
        if path == "/version":
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0-stand-in"}
        groups = sorted({each.partition("/")[0] for each in self._kinds} - {""})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": each} for each in groups]}

    async def _admitted(
        self, request: web.Request, kind: _Kind, at: Id, subresource: str, body: Document
    ) -> tuple[Document, list[str]]:
        """What webhooks make of an object that is to be created or replaced, and what they say."""
        webhooks = [
            {"kind": name, **each}
            for name in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
            for each in self._kinds[f"admissionregistration.k8s.io/v1/{name.lower()}s"].objects.values()
        ]
        space = self._kinds["/v1/namespaces"].objects.get(("", at[0]))
        if not webhooks or space is None or subresource or request.method not in {"POST", "PUT"}:
            return body, []
        old = kind.objects.get(at) if request.method == "PUT" else None
        name = body["metadata"].get("name", "")
        asked = admission_request(kind.plural, name, at[0], body, old)
        return await admitted(webhooks, asked, space)

    def _asked_for(self, request: web.Request) -> tuple[_Kind, Id, str]:
        path = _PATH.fullmatch(request.path)
        kind = path and self._kinds.get(
            f"{path['group'] or ''}/{path['version'] or path['core']}/{path['plural']}"
        )
        if (
            path is None
            or kind is None
            or (path["sub"] and not (path["sub"] == "status" and kind.has_status))
        ):
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return kind, (path["namespace"] or "", path["name"] or ""), path["sub"] or ""

    def _done(self, request: web.Request, kind: _Kind, at: Id, subresource: str, body: Document) -> Document:
        ways: dict[tuple[str, str], Callable[[], Document]] = {
            ("GET", ""): lambda: _found(kind, at) if at[1] else self._list(kind, at[0], request.query),
            ("POST", "application/json"): lambda: self._create(kind, at[0], body),
            ("PUT", "application/json"): lambda: self._change(
                kind, at, subresource, lambda _: deepcopy(body), body
            ),
            ("PATCH", "application/merge-patch+json"): lambda: self._change(
                kind, at, subresource, lambda found: _merged(found, body), body
            ),
            ("PATCH", "application/apply-patch+yaml"): lambda: self._apply(
                kind, at, body, request.query["fieldManager"]
            ),
            ("DELETE", "application/json"): lambda: self._delete(kind, at, body.get("preconditions") or {}),
        }
        way = ways.get((request.method, "" if request.method == "GET" else request.content_type))
        if way is None:
            raise Refusal(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        return way()

    def _list(self, kind: _Kind, namespace: str, query: Any) -> Document:
        chosen = [
            each
            for at, each in sorted(kind.objects.items())
            if namespace in {"", at[0]}
            and _selected(each, query.get("labelSelector", ""))
            and query.get("fieldSelector", "") in {"", f"metadata.name={at[1]}"}
        ]
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or 0) or len(chosen)
        more = {"continue": str(start + limit)} if start + limit < len(chosen) else {}
        return {
            "apiVersion": "v1",
            "kind": "List",
            "metadata": {"resourceVersion": str(self._version), **more},
            "items": chosen[start : start + limit],
        }

    def _create(self, kind: _Kind, namespace: str, body: Document) -> Document:
        at = (namespace, body["metadata"]["name"])
        if at in kind.objects:
            raise Refusal(409, "AlreadyExists", f'{kind.plural} "{at[1]}" already exists')
        self._check_namespace(kind, namespace)
        document = deepcopy(body)
        if kind.has_status:
            document.pop("status", None)
        document["metadata"] = {
            **document["metadata"],
            **({"namespace": namespace} if kind.namespaced else {}),
            "uid": str(uuid.uuid4()),
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "generation": 1,
        }
        self._check(kind, document)
        if kind.plural == "/v1/namespaces":
            document |= _NAMESPACE
        self._put(kind, "ADDED", document)
        self._define(document, served=True)
        return document

    def _change(
        self, kind: _Kind, at: Id, subresource: str, make: Callable[[Document], Document], body: Document
    ) -> Document:
        found = _found(kind, at)
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version not in {None, found["metadata"]["resourceVersion"]}:
            raise Refusal(409, "Conflict", "the object has been modified; please apply your changes to it")
        made = make(deepcopy(found))
        after = {**found, "status": made.get("status")} if subresource else made
        if not subresource and kind.has_status:
            after["status"] = found.get("status")
        if after.get("status") is None:
            after.pop("status", None)
        kept = ("uid", "creationTimestamp", "generation", "resourceVersion", "namespace", "name")
        after["metadata"] = {
            **after["metadata"],
            **{each: found["metadata"][each] for each in kept if each in found["metadata"]},
        }
        self._check(kind, after)
        if after == found:
            return found
        if _declared(after) != _declared(found):
            after["metadata"]["generation"] = found["metadata"].get("generation", 0) + 1
        self._put(kind, "MODIFIED", after)
        self._redefine(after)
        return after

    def _apply(self, kind: _Kind, at: Id, body: Document, manager: str) -> Document:
        before = kind.applied.get((at, manager), {})
        if at in kind.objects:
            made = self._change(
                kind, at, "", lambda found: _merged(_without(found, before, body), body), body
            )
        else:
            made = self._create(kind, at[0], body)
        kind.applied[at, manager] = deepcopy(body)
        return made

    def _delete(self, kind: _Kind, at: Id, conditions: Document) -> Document:
        found = _found(kind, at)
        for name, value in conditions.items():
            if found["metadata"][name] != value:
                raise Refusal(409, "Conflict", f"Precondition failed: {name} is {found['metadata'][name]}")
        if kind.plural == "/v1/namespaces":
            # As without the controller that empties it: it stays, and takes nothing more.
            found = deepcopy(found)
            found["metadata"]["deletionTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            found["status"] = {"phase": "Terminating"}
            self._put(kind, "MODIFIED", found)
            return found
        del kind.objects[at]
        self._define(found, served=False)
        self._put(kind, "DELETED", deepcopy(found))
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _define(self, document: Document, *, served: bool) -> None:
        """Serve the kind that a CustomResourceDefinition defines, or no more."""
        if document.get("kind") != "CustomResourceDefinition":
            return
        spec = document["spec"]
        path = f"{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        if served:
            self._kinds[path] = _Kind(path, spec["scope"] == "Namespaced", document)
            return
        kind = self._kinds.pop(path)
        for each in kind.objects.values():
            self._put(_Kind(path, kind.namespaced), "DELETED", deepcopy(each))

    def _redefine(self, document: Document) -> None:
        """Go by a CustomResourceDefinition that was changed."""
        for kind in self._kinds.values():
            if (
                kind.definition is not None
                and kind.definition["metadata"]["uid"] == document["metadata"]["uid"]
            ):
                kind.definition = document

    def _check_namespace(self, kind: _Kind, namespace: str) -> None:
        if not kind.namespaced:
            return
        found = self._kinds["/v1/namespaces"].objects.get(("", namespace))
        if found is None:
            raise Refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        if "deletionTimestamp" in found["metadata"]:
            message = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise Refusal(403, "Forbidden", message)

    @staticmethod
    def _check(kind: _Kind, document: Document) -> None:
        if kind.definition is None:
            return
        schema = kind.definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for name in ("spec", "status"):
            if name in document:
                document[name] = _pruned(schema["properties"].get(name, {}), document[name])
        problems = refusals(kind.definition, document)
        if problems:
            raise Refusal(422, "Invalid", "; ".join(problems))

    def _put(self, kind: _Kind, what: str, document: Document) -> None:
        self._version += 1
        document["metadata"]["resourceVersion"] = str(self._version)
        if what != "DELETED":
            metadata = document["metadata"]
            kind.objects[metadata.get("namespace", ""), metadata["name"]] = document
        self._history.append(_Told(self._version, kind.plural, what, deepcopy(document)))
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self, request: web.Request, kind: _Kind, namespace: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self.break_off.add(task)
        at, labels = int(request.query["resourceVersion"]), request.query.get("labelSelector", "")
        try:
            async with asyncio.timeout(int(request.query["timeoutSeconds"])):
                while at >= self._compacted:
                    changed = self._changed
                    for told in [each for each in self._history if each.version > at]:
                        at = told.version
                        document = told.object
                        if told.kind == kind.plural and namespace in {
                            "",
                            document["metadata"].get("namespace"),
                        }:
                            await self._tell(response, told, labels)
                    await changed.wait()
                gone = Refusal(410, "Expired", "too old resource version").document
                await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self.break_off.discard(task)
        return response

    @staticmethod
    async def _tell(response: web.StreamResponse, told: _Told, labels: str) -> None:
        selected = _selected(told.object, labels)
        # What loses its label is gone for who asked for that.
        what = told.type if selected else "DELETED" if told.type == "MODIFIED" else ""
        if what:
            line = json.dumps({"type": what, "object": told.object})
            await response.write(line.encode() + b"\n")


def _check_token(request: web.Request) -> None:
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        raise Refusal(401, "Unauthorized", "Unauthorized")


_NAMESPACE: Document = {"apiVersion": "v1", "kind": "Namespace", "status": {"phase": "Active"}}


def _found(kind: _Kind, at: Id) -> Document:
    found = kind.objects.get(at)
    if found is None:
        raise Refusal(404, "NotFound", f'{kind.plural} "{at[1]}" not found')
    return found


def _declared(document: Document) -> Document:
    return {name: value for name, value in document.items() if name not in {"metadata", "status"}}


def _selected(document: Document, selector: str) -> bool:
    labels = document["metadata"].get("labels") or {}
    for each in filter(None, selector.split(",")):
        name, equals, value = each.partition("=")
        if (labels.get(name) != value) if equals else (name not in labels):
            return False
    return True


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    made = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = _merged(made.get(name), value)
    return made


def _without(found: Any, before: Any, now: Any) -> Any:
    """`found` without what was applied `before`, and is not `now`."""
    if not (isinstance(found, dict) and isinstance(before, dict)):
        return found
    now = now if isinstance(now, dict) else {}
    made = {}
    for name, value in found.items():
        if name not in before or name in now:
            made[name] = _without(value, before.get(name), now.get(name))
    return made


def _pruned(schema: Document, value: Any) -> Any:
    """`value` without the fields that the schema does not know, and nulls that it does not take."""
    if isinstance(value, list):
        return [_pruned(schema.get("items", {}), each) for each in value]
    if not isinstance(value, dict):
        return value
    inside = schema.get("properties")
    rest = schema.get("additionalProperties", {})
    return {
        name: _pruned(inside[name] if inside is not None else rest, each)
        for name, each in value.items()
        if (inside is None or name in inside)
        and (each is not None or (inside or {}).get(name, {}).get("nullable"))
    }
