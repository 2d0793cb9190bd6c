"""AccessPolicies for the agents that are measured, and how to know that they are enforced."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import aiohttp
import yaml
from benchmarks.rig import START_TIMEOUT, Rig

from weft.aio.poll import until
from weft.local.security import OPERATOR

_PROBE = "/probe"
"""Path that the policy which comes last in Envoy's order denies to everybody."""


_AT_ONCE = 250
"""Policies in one manifest: all of it is to be written in one turn, also while the machine is busy."""

USUAL = 10
"""How many policies about an agent a mesh has where everything is switched on."""


async def switch_on(mesh: Rig, agent_type: str) -> None:
    """Have the mesh deny by default, allow the operator to call `agent_type`, and deny others this and that.

    Raises RuntimeError as `declare` does.
    """
    nobody = _document("nobody", {"default": "deny"})
    operator = _policy("operator", agent_type, {"effect": "allow", "from": [{"operator": OPERATOR}]})
    await _apply(mesh, [operator, nobody])
    await declare(mesh, agent_type, USUAL)


async def declare(mesh: Rig, agent_type: str, count: int) -> None:
    """Declare `count` policies about calls of `agent_type`, and wait until its sidecar enforces them.

    None of them stops the calls that are measured, so Envoy looks at every one for each call. Raises
    RuntimeError if they are not enforced in START_TIMEOUT.
    """
    await _apply(mesh, [*_others(agent_type, count - 1), _probed(agent_type)])
    await _enforced(mesh.mesh.proxy_url, agent_type)


def _others(agent_type: str, count: int) -> Iterator[dict[str, Any]]:
    """Policies that match by method and path, and then not by the caller: Envoy looks at all of it."""
    for number in range(count):
        yield _policy(
            f"{agent_type}-{number:05}",
            agent_type,
            {
                "from": [{"type": f"stranger-{number}"}],
                "rules": [{"methods": ["POST"], "paths": ["/rpc*"]}],
            },
        )


def _probed(agent_type: str) -> dict[str, Any]:
    return _policy(f"{agent_type}-last", agent_type, {"rules": [{"methods": ["GET"], "paths": [_PROBE]}]})


def _policy(name: str, agent_type: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _document(name, {"effect": "deny", "to": [{"type": agent_type}], **spec})


def _document(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "AccessPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


async def _apply(mesh: Rig, documents: Iterable[dict[str, Any]]) -> None:
    remaining = iter(documents)
    while batch := list(islice(remaining, _AT_ONCE)):
        await mesh.mesh.api.apply(yaml.safe_dump_all(batch), "policies.yaml")


async def _enforced(proxy_url: str, agent_type: str) -> None:
    timeout = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(headers={"x-weft-to": agent_type}, timeout=timeout) as client:

        async def denied() -> bool:
            try:
                async with client.get(f"{proxy_url}{_PROBE}") as response:
                    return response.status == 403
            except (aiohttp.ClientError, TimeoutError):
                return False

        try:
            async with asyncio.timeout(START_TIMEOUT):
                await until(denied)
        except TimeoutError:
            raise RuntimeError(
                f"the policies of {agent_type} are not enforced after {START_TIMEOUT:g} s"
            ) from None
