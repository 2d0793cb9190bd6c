"""The ways from a client to the provider of a model: directly, by a bare Envoy, by peers, by the mesh."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from benchmarks.load import Target
from benchmarks.models.calls import PATH, STREAMED, WHOLE, answer, events, request
from benchmarks.processes import envoy_command
from benchmarks.rig import HOST, START_TIMEOUT, Rig, free_port

from weft.aio.poll import until
from weft.model.llm_wire import LLM_HOST

PEERS = Path(".venv-peers/bin")
"""Where `make peers` puts the programs that Weft is measured beside."""

_LITELLM_START_TIMEOUT = 180.0
"""Seconds that LiteLLM may take to start: its imports are many."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Something that answers as OpenAI does, far faster than what is before it."""

    whole: int
    """Port at which answers come whole."""
    streamed: int
    """Port at which they come as streams."""
    pid: int


@dataclass(frozen=True, slots=True)
class Door:
    """One way to the provider."""

    whole: Target
    streamed: Target | None
    """None: it is not measured with streams."""
    pids: tuple[int, ...] = ()
    """Processes that a whole answer goes through, and that are the way's own."""


async def provider(rig: Rig) -> Provider:
    """Start an Envoy that answers by itself."""
    whole, streamed = rig.port(), rig.port()
    told = {"answer": json.dumps(answer()), "events": json.dumps(events())}
    child = await rig.start(envoy_command("provider.yaml", whole=whole, streamed=streamed, **told))
    return Provider(whole, streamed, child.pid)


async def direct(_rig: Rig, to: Provider) -> Door:
    """No way at all."""
    return await _open(Door(*_targets(to.whole, to.streamed)))


async def bare_hop(rig: Rig, to: Provider) -> Door:
    """An Envoy with the least configuration that a person would write, for each port of the provider."""
    whole, streamed = rig.port(), rig.port()
    child = await rig.start(envoy_command("bare_hop.yaml", port=whole, upstream=to.whole))
    await rig.start(envoy_command("bare_hop.yaml", port=streamed, upstream=to.streamed))
    return await _open(Door(*_targets(whole, streamed), (child.pid,)))


async def litellm(rig: Rig, to: Provider) -> Door:
    """LiteLLM's proxy: one worker, no database, no callbacks, no log but of errors."""
    port, key = free_port(), f"sk-{secrets.token_hex(16)}"
    config = rig.directory / "litellm.json"
    config.write_text(json.dumps(_litellm_config(to)), encoding="utf-8")
    command = ["litellm", "--config", str(config), "--host", HOST, "--port", str(port), "--num_workers", "1"]
    environ = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "DISABLE_ADMIN_UI": "True",
    }
    pid = await _peer(rig, command, environ)
    return await _open(Door(*_targets(port, port, key), (pid,)), _LITELLM_START_TIMEOUT)


async def vllm_router(rig: Rig, to: Provider) -> Door:
    """vLLM's router, in Rust."""
    return await _router(rig, to, ["vllm-router"])


async def sglang_router(rig: Rig, to: Provider) -> Door:
    """SGLang's router, in Rust."""
    return await _router(rig, to, ["sglang-router", "launch"])


async def weft(rig: Rig, _to: Provider) -> Door:
    """A sidecar of the mesh, which has pools for both models. They are declared before (`declare`)."""
    url, envoy = await rig.caller("caller-1")
    return await _open(Door(*_through(url, WHOLE, STREAMED), (envoy,)))


async def weft_asked(rig: Rig, model: str) -> Door:
    """A sidecar of the mesh, for a `model` of which every call asks the scheduler, whose time counts, too."""
    control = rig.mesh.children["control"].pid
    assert control is not None, "the mesh is up"
    url, envoy = await rig.caller("caller-2")
    whole, _ = _through(url, model, model)
    return await _open(Door(whole, None, (envoy, control)))


def has_peers() -> bool:
    """Whether `make peers` was run."""
    return (PEERS / "litellm").exists()


def _through(sidecar: str, whole: str, streamed: str) -> tuple[Target, Target]:
    url = f"{sidecar}{PATH}"
    return (
        Target(url, LLM_HOST, request(whole)),
        Target(url, LLM_HOST, request(streamed, streamed=True)),
    )


def _targets(whole: int, streamed: int, key: str = "") -> tuple[Target, Target]:
    return (
        Target(f"http://{HOST}:{whole}{PATH}", body=request(WHOLE), key=key),
        Target(f"http://{HOST}:{streamed}{PATH}", body=request(STREAMED, streamed=True), key=key),
    )


def _litellm_config(to: Provider) -> dict[str, object]:
    def model(name: str, port: int) -> dict[str, object]:
        api = {"model": f"openai/{name}", "api_base": f"http://{HOST}:{port}/v1", "api_key": "none"}
        return {"model_name": name, "litellm_params": api}

    return {
        "model_list": [model(WHOLE, to.whole), model(STREAMED, to.streamed)],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }


async def _router(rig: Rig, to: Provider, program: Sequence[str]) -> Door:
    whole, streamed = free_port(), free_port()
    pid = await _routing(rig, program, whole, to.whole)
    await _routing(rig, program, streamed, to.streamed)
    return await _open(Door(*_targets(whole, streamed), (pid,)))


async def _routing(rig: Rig, program: Sequence[str], port: int, upstream: int) -> int:
    return await _peer(
        rig,
        [
            *program,
            *("--host", HOST, "--port", str(port), "--worker-urls", f"http://{HOST}:{upstream}"),
            *("--prometheus-port", str(free_port()), "--log-level", "error"),
        ],
        {},
    )


async def _peer(rig: Rig, command: Sequence[str], environ: Mapping[str, str]) -> int:
    program, *arguments = command
    # Where that is set Python compiles every module at every start.
    more = {"PYTHONDONTWRITEBYTECODE": "", **environ}
    return (await rig.start([str(PEERS / program), *arguments], environ=more)).pid


async def _open(door: Door, timeout: float = START_TIMEOUT) -> Door:
    for target in (door.whole, door.streamed):
        if target is not None:
            await takes_calls(target, timeout)
    return door


async def takes_calls(target: Target, timeout: float = START_TIMEOUT) -> None:
    """Wait until a call is answered with 200. Raises RuntimeError after `timeout` seconds."""
    headers = {"content-type": "application/json", "x-weft-to": target.destination}
    if target.key:
        headers["authorization"] = f"Bearer {target.key}"
    said = "no answer"

    async def ok() -> bool:
        nonlocal said
        try:
            async with client.post(target.url, data=target.body, headers=headers) as response:
                said = f"{response.status} {(await response.text())[:300]}"
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client:
        try:
            async with asyncio.timeout(timeout):
                await until(ok)
        except TimeoutError:
            raise RuntimeError(f"no call through {target.url} in {timeout:g} s: {said}") from None
