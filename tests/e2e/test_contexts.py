"""Conversations in a whole mesh: they outlive whoever took part, and stay among those whose they are."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio
from tests.e2e.meshes import RunningMesh, eventually, gone, running_mesh
from tests.e2e.messaging_mesh import LIMIT, acting_as, agent, api_key, document, manifest

from weft import Mesh, MeshError, NotFound
from weft.aio.ports import reserve_port
from weft.local.context_control import ContextApi
from weft.model.membership import DOOR_DIRECTORY, IDENTITY_VARIABLE

pytestmark = pytest.mark.asyncio(loop_scope="module")

STICKY = document(
    "TrafficPolicy", "talker", target={"type": "talker"}, loadBalancing={"contextAffinity": True}
)


class Stage:
    """The mesh, and its ways in."""

    def __init__(self, mesh: RunningMesh, client: Mesh, gateway: str) -> None:
        self.mesh = mesh
        self.client = client
        self.gateway = gateway

    async def say(self, context: str, text: str, to: str = "talker", **options: Any) -> dict[str, Any]:
        """Say something in a conversation."""
        headers = {"x-weft-context": context}
        return dict(await self.client.request(to, "say", text=text, headers=headers, **options))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    with reserve_port("127.0.0.1") as reserved:
        port = reserved.port
    declared = manifest(
        agent("talker", "talker.py", replicas=3),
        agent("stranger", "talker.py", labels={"tenant": "acme"}),
        document("Gateway", "public", port=port, agents=["talker"]),
        STICKY,
    )
    async with running_mesh(declared) as mesh:
        environ = {
            "WEFT_PROXY": mesh.local.proxy_url,
            IDENTITY_VARIABLE: str(mesh.home / DOOR_DIRECTORY),
        }
        async with acting_as(environ) as client:
            yield Stage(mesh, client, f"http://127.0.0.1:{port}")


async def test_calls_of_a_conversation_go_to_one_instance_and_when_it_dies_the_next_finds_it_whole(
    stage: Stage,
) -> None:
    context = f"chat-{secrets.token_hex(8)}"
    first = [await stage.say(context, f"m{number}") for number in range(10)]
    [home] = {each["instance"] for each in first}
    [pid] = {each["pid"] for each in first}
    others = {(await stage.say(f"{context}-{number}", "x"))["instance"] for number in range(40)}
    assert len(others) == 3
    program = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    os.kill(stage.mesh.process(home).pid, signal.SIGKILL)
    await gone(program)
    answered: list[dict[str, Any]] = []

    async def goes_on() -> bool:
        try:
            answered.append(await stage.say(context, "m10"))
        except MeshError:
            return False  # it went down with the instance, which may have heard it
        return True

    await eventually(goes_on, lambda: "nobody else answers")
    [next_one] = answered
    assert next_one["pid"] != pid
    heard = next_one["heard"]
    assert heard[:10] == [f"m{number}" for number in range(10)]
    assert set(heard[10:]) == {"m10"}
    assert next_one["number"] == len(heard)
    assert next_one["said"] >= 11
    kept = stage.client.context(context)
    messages = await kept.messages()
    assert [each.number for each in messages] == list(range(1, len(heard) + 1))
    authors = {each.author.rpartition("/")[2] for each in messages}
    assert home in authors
    assert (await kept.artifact("last.txt")).data == b"m10" * 100_000
    await stage.mesh.ready(home)


async def test_no_call_fails_while_conversations_come_to_keep_to_instances_or_no_longer_do(
    stage: Stage,
) -> None:
    over = asyncio.Event()

    async def talk(number: int) -> int:
        heard = 0
        context = f"chat-{secrets.token_hex(8)}"
        while not over.is_set():
            heard += 1
            # Without an Idempotency-Key: nothing repeats what was lost on the way.
            assert (await stage.say(context, f"m{heard}"))["number"] == heard, number
        return heard

    talking = asyncio.gather(*map(talk, range(4)))
    for wanted in (False, True, False, True):
        policy = {"target": {"type": "talker"}, "loadBalancing": {"contextAffinity": wanted}}
        await stage.mesh.apply(document("TrafficPolicy", "talker", **policy))

        async def spread(wanted: bool = wanted) -> bool:
            assert not talking.done(), talking.result()
            context = f"chat-{secrets.token_hex(8)}"
            homes = {(await stage.say(context, "x"))["instance"] for _ in range(6)}
            return (len(homes) == 1) == wanted

        await eventually(spread, lambda: "the policy has no effect")
    over.set()
    assert all(await talking)


async def test_a_context_is_its_tenants_own_whoever_hands_its_id_on(stage: Stage) -> None:
    context = f"chat-{secrets.token_hex(8)}"
    await stage.say(context, "ours")
    assert await stage.client.request("talker", "peek", context=context)
    assert not await stage.client.request("stranger", "peek", context=context)
    theirs = await stage.say(context, "theirs", to="stranger")
    assert (theirs["context"], theirs["heard"]) == (context, ["theirs"])
    assert [each.content for each in await stage.client.context(context).messages()] == ["ours"]
    api = ContextApi(stage.mesh.api)
    shown = await api.context(context, "acme", messages=5)
    assert [each["content"] for each in shown["messages"]] == ["theirs"]
    await api.delete(context, "acme")
    with pytest.raises(NotFound):
        await api.context(context, "acme", messages=5)
    assert (await api.context(context, "default", messages=5))["messageCount"] == 1


async def test_nobody_outside_gets_at_a_context_of_the_mesh_or_of_another_caller(stage: Stage) -> None:
    context = f"chat-{secrets.token_hex(8)}"
    await stage.say(context, "inside")
    keys = {name: await api_key(stage.mesh, "public", name) for name in ("shop", "thief")}

    async def outside(name: str, *contexts: str) -> dict[str, Any]:
        headers = [*keys[name].items(), *(("x-weft-context", each) for each in contexts)]
        async with httpx.AsyncClient(base_url=stage.gateway, trust_env=False, timeout=LIMIT) as client:
            body = {"kind": "say", "payload": {"text": name}}
            answer: list[httpx.Response] = []

            async def let_in() -> bool:
                answer[:] = [await client.post("/v1/agents/talker", json=body, headers=headers)]
                return answer[0].status_code == 200

            await eventually(let_in, lambda: answer[0].text)
            return dict(answer[0].json()["result"])

    shop = await outside("shop", context)
    assert shop["heard"] == ["shop"]
    again = await outside("shop", context)
    assert (again["context"], again["heard"]) == (shop["context"], ["shop", "shop"])
    for stolen in (context, shop["context"]):
        assert (await outside("thief", stolen))["heard"] == ["thief"]
    twice = await outside("thief", "a", shop["context"])
    assert (twice["heard"], shop["context"] in twice["named"]) == (["thief"], False)
    assert (await outside("thief"))["heard"] == ["thief"]
    assert [each.content for each in await stage.client.context(context).messages()] == ["inside"]
