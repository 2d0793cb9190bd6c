"""The values of Weft's Secrets, from Kubernetes' own. They go to the mesh, and nowhere else."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from weft.errors import Denied
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.kinds import SECRET, Document, Key


class Unresolved(Exception):
    """A value that is not to be had: why, in one word and in a text that says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Values:
    """The values of a Secret."""

    data: dict[str, str] = field(repr=False)
    versions: str
    """From which versions of which Secrets they are. Nothing can be concluded from it about a value."""


async def secret_values(cluster: Cluster, custom: Document) -> Values:
    """The values that a custom Secret names. Raises Unresolved, and what the cluster raises."""
    namespace = custom["metadata"]["namespace"]
    references = {
        name: each["secretKeyRef"] for name, each in ((custom.get("spec") or {}).get("data") or {}).items()
    }
    found: dict[str, Document] = {}
    for name in sorted({each["name"] for each in references.values()}):
        found[name] = await _secret(cluster, Key(namespace, name))
    versions = ",".join(f"{name}@{each['metadata']['resourceVersion']}" for name, each in found.items())
    data = {
        name: _value(found[each["name"]], str(each["key"]), f"{namespace}/{each['name']}")
        for name, each in references.items()
    }
    return Values(data, versions)


async def _secret(cluster: Cluster, key: Key) -> Document:
    try:
        secret = await cluster.get(SECRET, key)
    except Denied as error:
        raise Unresolved(
            "SecretDenied",
            f"the controller may not read Secret {key} (core/v1): name {key.namespace} in the installation's "
            "value controller.secretsIn",
        ) from error
    if secret is None:
        raise Unresolved("SecretMissing", f"there is no Secret {key} (core/v1): create it")
    return secret


def _value(secret: Document, key: str, where: str) -> str:
    data: dict[str, Any] = secret.get("data") or {}
    if key not in data:
        raise Unresolved("SecretMissing", f"Secret {where} (core/v1) has no key {key!r}: add it")
    try:
        return base64.b64decode(data[key], validate=True).decode()
    except (binascii.Error, ValueError):
        # Without its cause: that would quote from the value.
        raise Unresolved(
            "SecretUnfit", f"the value of {key!r} in Secret {where} is not text in UTF-8"
        ) from None
