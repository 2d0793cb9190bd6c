"""The pools that the mesh's calls to models go through."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from benchmarks.rig import HOST, Rig

AMPLE = {"requestsPerMinute": 100_000_000, "tokensPerMinute": 100_000_000_000}
"""Limits that nobody reaches."""


def pool(name: str, port: int, limits: dict[str, int], **scheduling: Any) -> dict[str, Any]:
    """A pool with one provider, at a port of this machine."""
    provider = {"name": "provider", "url": f"http://{HOST}:{port}/v1", "limits": limits}
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "ModelPool",
        "metadata": {"name": name},
        "spec": {"providers": [provider], "scheduling": scheduling},
    }


async def declare(rig: Rig, pools: Iterable[dict[str, Any]]) -> None:
    """Have the mesh know these."""
    await rig.mesh.api.apply("\n---\n".join(json.dumps(each) for each in pools), "pools.yaml")
