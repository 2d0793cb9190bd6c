"""The agent's program: found before anything starts, and told what it needs through its environment."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.model.membership import IDENTITY_VARIABLE
from weft.model.node import Address, AgentProtocol, Node
from weft.sidecar.exit_codes import CannotRun, ExitCode
from weft.sidecar.program_tracing import traced

CONTROL_URL = "http://control.mesh"
LLM_VARIABLE = "WEFT_LLM_URL"
"""Environment variable: where the mesh's models are, with OpenAI's API; up to and with `/v1`."""
NO_KEY = "weft"
"""Stands for a key where the mesh needs none."""
_BESIDE_THE_PROXY = ("localhost", "127.0.0.1", "::1")


def check_command(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raise CannotRun unless the program can be found, along PATH or where its path says, and executed."""
    name = command[0]
    if shutil.which(name, path=environ.get("PATH")) is not None:
        return
    if "/" in name and Path(name).exists():
        raise CannotRun(f"{name!r} is not an executable program", ExitCode.CANNOT_EXECUTE)
    place = "" if "/" in name else " along PATH"
    raise CannotRun(f"program {name!r} was not found{place}", ExitCode.NOT_FOUND)


def program_command(command: Sequence[str], protocol: AgentProtocol) -> tuple[str, ...]:
    """What is started for `command`: itself, or what serves by HTTP what it says on its standard streams."""
    if protocol is not AgentProtocol.MCP_STDIO:
        return tuple(command)
    # -P: what lies in the directory where it starts is not taken for a library of ours.
    return (sys.executable, "-P", "-m", "weft.mcp_stdio", "--", *command)


async def start_program(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    node: Node,
    identity: Path,
    trust_domain: str,
    guard: Guard,
) -> Child:
    """Start `command` beside `node`'s sidecar, whose certificate is in the directory `identity`.

    Raises CannotRun if the system refuses to.
    """
    try:
        return await spawn(command, guard=guard, environ=environment(environ, node, identity, trust_domain))
    except OSError as error:
        detail = f"program {command[0]!r} cannot be started: {error.strerror or error}"
        raise CannotRun(detail, ExitCode.CANNOT_EXECUTE) from error


def environment(base: Mapping[str, str], node: Node, identity: Path, trust_domain: str) -> dict[str, str]:
    """`base` with what a program beside `node`'s sidecar needs to be called, to call, and to be seen.

    An ordinary HTTP client finds the mesh through HTTP_PROXY, and the world through the same proxy, for https
    too, so that an Egress sees it. The names that NO_PROXY had are kept.
    """
    proxy = f"http://{node.outbound}"
    no_proxy = _no_proxy(base)
    variables = {
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "WEFT_PROXY": proxy,
        "WEFT_INSTANCE": node.id,
        "WEFT_CONTROL": CONTROL_URL,
        IDENTITY_VARIABLE: str(identity),
    }
    variables |= _models(base, f"{proxy}/v1")
    variables |= traced(base, node, trust_domain)
    if node.inbound is not None:
        variables |= _served(node.inbound.type, node.inbound.agent)
    return {**base, **variables}


def _models(base: Mapping[str, str], url: str) -> dict[str, str]:
    """Where clients of OpenAI's API find the mesh's models. Who has a key or a URL already keeps to it."""
    found = {} if LLM_VARIABLE in base else {LLM_VARIABLE: url}
    if not base.get("OPENAI_API_KEY") and not base.get("OPENAI_BASE_URL"):
        # Clients insist on a key; Envoy puts the provider's in its place.
        found |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": NO_KEY}
    return found


def _served(agent_type: str, agent: Address) -> dict[str, str]:
    return {"PORT": str(agent.port), "WEFT_PORT": str(agent.port), "WEFT_TYPE": agent_type}


def _no_proxy(base: Mapping[str, str]) -> str:
    given = base.get("no_proxy") or base.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    return ",".join(names + [name for name in _BESIDE_THE_PROXY if name not in names])
