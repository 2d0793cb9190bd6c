"""What an API server does with webhooks, for the stand-in: whom it asks about what, and what it makes of it.

By the documentation of Kubernetes ("Dynamic Admission Control"). What it does not do: reinvocation, match
conditions, Services (nothing answers there, as in a real one without a cluster's network), and patches.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import uuid
from collections.abc import Mapping
from typing import Any

import aiohttp

from tests.json_patches import applied

Document = dict[str, Any]


class Denied(Exception):
    """A webhook refused an object."""

    def __init__(self, status: Document) -> None:
        super().__init__(status["message"])
        self.status = status


def admission_request(path: str, name: str, namespace: str, new: Document, old: Document | None) -> Document:
    """The question about an object to be created, or to be in place of `old`; `path` is its kind's."""
    group, version, plural = path.split("/")[-3:]
    return {
        "kind": {"group": group, "version": version, "kind": new.get("kind", "")},
        "resource": {"group": group, "version": version, "resource": plural},
        "operation": "CREATE" if old is None else "UPDATE",
        "name": name,
        "namespace": namespace,
        "object": {**new, "metadata": {**new["metadata"], "namespace": namespace}},
        "oldObject": old,
    }


async def admitted(
    configurations: list[Document], asked: Document, namespace: Document
) -> tuple[Document, list[str]]:
    """What becomes of the object that `asked` (an AdmissionRequest) is about, and what its author is told.

    `namespace` is the Namespace in which it is. Raises Denied.
    """
    told: list[str] = []
    configurations = sorted(configurations, key=lambda each: str(each["metadata"]["name"]))
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for webhook in (
            each for found in configurations if found["kind"] == kind for each in found["webhooks"]
        ):
            if not _matches(webhook, asked, namespace):
                continue
            response = await _asked(webhook, asked)
            if response is None:
                continue
            told += response.get("warnings", ())
            if not response["allowed"]:
                raise Denied(_denied(webhook["name"], response.get("status") or {}))
            if "patch" in response:
                assert kind == "MutatingWebhookConfiguration", "only these may change anything"
                assert response["patchType"] == "JSONPatch"
                patch = json.loads(base64.b64decode(response["patch"], validate=True))
                asked = {**asked, "object": applied(asked["object"], patch)}
    return asked["object"], told


def _denied(webhook: str, status: Mapping[str, Any]) -> Document:
    said = status.get("message") or status.get("reason") or "denied without explanation"
    usual = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden"}
    return {**usual, **status, "message": f'admission webhook "{webhook}" denied the request: {said}'}


def _matches(webhook: Document, asked: Document, namespace: Document) -> bool:
    objects = [each for each in (asked["object"], asked["oldObject"]) if each is not None]
    return (
        any(_rule_matches(each, asked) for each in webhook["rules"])
        and _selected(webhook.get("namespaceSelector") or {}, _labels(namespace))
        and any(_selected(webhook.get("objectSelector") or {}, _labels(each)) for each in objects)
    )


def _labels(document: Document) -> Mapping[str, str]:
    return document["metadata"].get("labels") or {}


def _rule_matches(rule: Document, asked: Document) -> bool:
    resource = asked["resource"]
    return all(
        wanted in rule[field] or "*" in rule[field]
        for field, wanted in (
            ("apiGroups", resource["group"]),
            ("apiVersions", resource["version"]),
            ("resources", resource["resource"]),
            ("operations", asked["operation"]),
        )
    )


def _selected(selector: Document, labels: Mapping[str, str]) -> bool:
    if any(labels.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    for each in selector.get("matchExpressions") or []:
        value, values = labels.get(each["key"]), each.get("values", [])
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds[each["operator"]]:
            return False
    return True


async def _asked(webhook: Document, asked: Document) -> Document | None:
    """The response; None where there is none, and that holds up nobody."""
    uid = str(uuid.uuid4())
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {**asked, "uid": uid},
    }
    try:
        async with asyncio.timeout(webhook["timeoutSeconds"]):
            answer = await _post(webhook["clientConfig"], review)
        response: Document = {uid: answer["response"]}[answer["response"]["uid"]]
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
        if webhook["failurePolicy"] == "Ignore":
            return None
        message = f'Internal error occurred: failed calling webhook "{webhook["name"]}": {error}'
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500}
        raise Denied({**status, "reason": "InternalError", "message": message}) from error
    return response


async def _post(client: Document, review: Document) -> Document:
    if "url" not in client:
        raise OSError("no network to Services")
    bundle = base64.b64decode(client.get("caBundle") or "")
    trust = ssl.create_default_context(cadata=bundle.decode() or None)
    async with (
        aiohttp.ClientSession() as session,
        session.post(client["url"], json=review, ssl=trust) as response,
    ):
        if response.status != 200:
            raise ValueError(f"it answers {response.status}")
        answer: Document = await response.json()
        return answer
