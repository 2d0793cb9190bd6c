"""Pools of models for tests, declared as an operator declares them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from weft.model.manifest import parse_documents
from weft.resources.store import Resources
from weft.store.bucket import Store

Manifest = dict[str, Any]


def model_pool(
    name: str, *further: Manifest, limits: Mapping[str, int] | None = None, **scheduling: Any
) -> Manifest:
    """A pool whose first provider, p1, has these limits, with `further` providers."""
    providers = [{"name": "p1", "url": "http://127.0.0.1:9/v1", "limits": limits or {}}, *further]
    return {
        "kind": "ModelPool",
        "metadata": {"name": name},
        "spec": {"providers": providers, "scheduling": scheduling},
    }


async def declare(store: Store, *resources: Manifest) -> None:
    """Declare all these."""
    manifest = "\n---\n".join(json.dumps({"apiVersion": "weft.dev/v1alpha1", **each}) for each in resources)
    await (await Resources.open(store)).apply(parse_documents(manifest))
