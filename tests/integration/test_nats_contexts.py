"""What members can get at of contexts in a real nats-server, whatever they send: their own tenant's only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from tests.conformance.context_scene import nats_with_contexts
from tests.secured_nats import PATIENCE, Secured

from weft.aio.poll import until
from weft.contexts.contexts import Contexts, of_tenant
from weft.controlplane.message_grants import Declared, message_grants
from weft.errors import Denied
from weft.model.spiffe import SpiffeId, agent_id
from weft.store.nats_accounts import MEMBER_API

ANN = agent_id("weft.local", "scribe", "ann")
EVE = agent_id("weft.local", "scribe", "eve")
NOBODY = agent_id("weft.local", "scribe", "nobody")

READ = f"{MEMBER_API}.DIRECT.GET.KV_contexts"


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    async with nats_with_contexts(tmp_path) as running:
        for who, labels in ((ANN, {"tenant": "acme"}), (EVE, {"tenant": "umbrella"}), (NOBODY, None)):
            running.messages[who] = message_grants({}, who, Declared({}, []), labels=labels)
        yield running


async def has_secret(secured: Secured) -> str:
    """Have a context of the tenant acme; its key's first two tokens."""
    async with secured.member(ANN) as store:
        contexts = await Contexts.open(store, of_tenant("acme"), author=str(ANN))
        conversation = contexts.conversation("known", may_begin=True)
        await conversation.append("user", "secret")
    return "acme.known"


async def refused(
    client: Client, complaints: Sequence[str], asked: Sequence[tuple[str, dict[str, Any]]]
) -> None:
    """Ask all that; the server must refuse each."""
    for subject, body in asked:
        await client.publish(subject, json.dumps(body).encode(), reply=client.new_inbox())

    async def all_refused() -> bool:
        return len([each for each in complaints if "permissions violation" in each]) >= len(asked)

    async with asyncio.timeout(PATIENCE):
        await until(all_refused)


@pytest.mark.parametrize("who", [EVE, NOBODY])
async def test_no_member_reads_or_writes_the_contexts_of_another_tenant(
    secured: Secured, who: SpiffeId
) -> None:
    place = await has_secret(secured)
    async with secured.member(who) as store:
        contexts = await Contexts.open(store, of_tenant("acme"), author=str(who))
        known = contexts.conversation("known")
        begun = contexts.conversation("mine", may_begin=True)
        for use in (known.messages(), known.delete(), known.append("user", "x"), begun.append("user", "x")):
            with pytest.raises(Denied):
                await use
    subjects = [f"{READ}.$KV.contexts.{place}.h", f"$KV.contexts.{place}.h", f"$KV.contexts.{place}.x.m.1"]
    async with secured.raw(who) as (client, complaints):
        await refused(client, complaints, [(each, {}) for each in subjects])
    async with secured.member(ANN) as store:
        kept = (await Contexts.open(store, of_tenant("acme"), author=str(ANN))).conversation("known")
        assert [each.content for each in await kept.messages()] == ["secret"]


async def test_no_member_lists_contexts_or_reads_them_other_than_by_their_keys(secured: Secured) -> None:
    await has_secret(secured)
    everything = {"last_by_subj": "$KV.contexts.acme.known.h"}
    consumer = {"stream_name": "KV_contexts", "config": {"deliver_subject": "x", "ack_policy": "none"}}
    asked: list[tuple[str, dict[str, Any]]] = [
        (READ, {"seq": 1}),
        (READ, {"multi_last": ["$KV.contexts.>"]}),
        (READ, everything),
        (f"{MEMBER_API}.STREAM.MSG.GET.KV_contexts", everything),
        (f"{MEMBER_API}.STREAM.INFO.KV_contexts", {"subjects_filter": ">"}),
        (f"{MEMBER_API}.CONSUMER.CREATE.KV_contexts", consumer),
        (f"{MEMBER_API}.STREAM.PURGE.KV_contexts", {}),
    ]
    for who in (ANN, EVE):
        async with secured.raw(who) as (client, complaints):
            await refused(client, complaints, asked)


async def test_a_key_with_wildcards_reads_nothing_of_another_tenant(secured: Secured) -> None:
    await has_secret(secured)
    async with secured.raw(EVE) as (client, complaints):
        for tail in ("umbrella.>", "umbrella.*.h"):
            # Its own subjects, where nothing is: a wildcard finds what was written last of what it covers.
            answer = await client.request(f"{READ}.$KV.contexts.{tail}", b"", timeout=PATIENCE)
            assert (answer.headers or {}).get("Status") == "404"
        await refused(
            client, complaints, [(f"{READ}.$KV.contexts.{tail}", {}) for tail in (">", "*.known.h")]
        )


async def test_who_comes_to_be_of_another_tenant_has_its_contexts_and_no_longer_the_former_ones(
    secured: Secured,
) -> None:
    await has_secret(secured)
    secured.messages[ANN] = message_grants({}, ANN, Declared({}, []), labels={"tenant": "umbrella"})
    assert await secured.admission.outdated() == [ANN]
    async with secured.member(ANN) as store:
        former = await Contexts.open(store, of_tenant("acme"), author=str(ANN))
        with pytest.raises(Denied):
            await former.conversation("known").messages()
        now = await Contexts.open(store, of_tenant("umbrella"), author=str(ANN))
        await now.conversation("own", may_begin=True).append("user", "x")
