"""What identities are granted in NATS, and how the servers are told."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

import nkeys
import pytest

from weft.controlplane.message_grants import MAX_CONSUMERS, Declared, MessageGrant, message_grants
from weft.controlplane.nats_access import grant
from weft.errors import Denied, InvalidRequest
from weft.model.access import AccessPolicySpec
from weft.model.spiffe import SpiffeId, agent_id, control_id, operator_id
from weft.model.topic import TopicSpec
from weft.store.nats_accounts import MEMBER_ACCOUNT
from weft.store.nats_callout import ConnectingClient, Grant, account_seed, answered, public_nkey, read_seed

ALICE = agent_id("weft.local", "worker", "alice")
LATER = time.time() + 3600


def policy(document: dict[str, Any]) -> AccessPolicySpec:
    return AccessPolicySpec.model_validate(document)


def test_an_agent_may_keep_its_registration_and_report_and_no_more() -> None:
    assert grant(ALICE, expires_at=LATER) == Grant(
        "spiffe://weft.local/agent/worker/alice",
        publish=(
            "_INBOX.agent.worker.alice.>",
            "$KV.instances.worker.alice",
            "WEFT.API.STREAM.INFO.KV_instances",
            "WEFT.API.STREAM.MSG.GET.KV_instances",
            "$KV.offers.worker.alice",
            "WEFT.API.DIRECT.GET.KV_offers.$KV.offers.worker.alice",
            "audit.agent.worker.alice",
            "WEFT.API.STREAM.INFO.audit",
            "signals.member.traffic.agent.worker.alice",
        ),
        subscribe=(
            "_INBOX.agent.worker.alice.>",
            "signals.*.drain.worker.alice",
            "signals.*.drain.worker.alice.>",
        ),
        expires_at=LATER,
    )


def test_an_operator_may_report_only_and_the_control_plane_may_do_everything() -> None:
    door = grant(operator_id("weft.local", "ops", "door"), expires_at=LATER)
    assert door.publish == (
        "_INBOX.operator.ops.door.>",
        "audit.operator.ops.door",
        "WEFT.API.STREAM.INFO.audit",
        "signals.member.traffic.operator.ops.door",
    )
    assert not door.control
    control = grant(control_id("weft.local", "one"), expires_at=LATER)
    assert (control.publish, control.subscribe, control.control) == ((">",), (">",), True)


@pytest.mark.parametrize(
    "path",
    ["", "/agent/worker", "/agent/worker/a.b", "/agent/wor.ker/a", "/control/a.b", "/operator/A/b", "/x/y/z"],
)
def test_whoever_else_may_do_nothing(path: str) -> None:
    with pytest.raises(Denied):
        grant(SpiffeId("weft.local", path), expires_at=LATER)


NOTHING = policy({"default": "deny"})
NEXT = "WEFT.API.CONSUMER.MSG.NEXT"
CONTEXTS = ("$KV.contexts.default.>", "WEFT.API.DIRECT.GET.KV_contexts.$KV.contexts.default.>")
"""What everybody may use who is of no tenant."""


def granted(
    declared: Declared, *, who: SpiffeId = ALICE, labels: dict[str, str] | None = None, **policies: Any
) -> MessageGrant:
    """What is granted where everything is denied but what `policies` allow."""
    specs = {name: policy({**document, "effect": "allow"}) for name, document in policies.items()}
    return message_grants({"none": NOTHING, **specs}, who, declared, labels=labels)


def test_who_may_submit_to_a_queue_may_use_its_lanes_its_tasks_and_their_signals() -> None:
    declared = Declared({}, ["work", "other"])
    submits = {"to": [{"queue": "work"}], "rules": [{"actions": ["submit"]}]}
    assert granted(declared, submits=submits) == MessageGrant(
        publish=(
            "queues.work.*",
            "queues.work.later.*",
            "WEFT.API.STREAM.INFO.LATER_work",
            "$KV.tasks.work.*",
            "WEFT.API.DIRECT.GET.KV_tasks.$KV.tasks.work.*",
            "WEFT.API.DIRECT.GET.KV_task-events.$KV.task-events.work.>",
            "signals.member.tasks.work.>",
            "signals.member.cancellations.work.>",
            "queues.weft-webhooks.*",
            *CONTEXTS,
        ),
        subscribe=("signals.*.tasks.work.>",),
    )


def test_who_may_consume_a_queue_may_take_from_it_too_and_hears_of_cancellations() -> None:
    declared = Declared({}, ["work", "other"])
    consumes = {"to": [{"queue": "work"}], "rules": [{"actions": ["consume"]}]}
    found = granted(declared, consumes=consumes)
    assert set(found.publish) > {
        *(f"{NEXT}.{stream}.LANE_{lane}" for stream in ("QUEUE_work", "LATER_work") for lane in range(3)),
        "$JS.ACK.QUEUE_work.*.>",
        "$JS.ACK.LATER_work.*.>",
        "dead.work.>",
        "$KV.task-events.work.>",
        "queues.work.*",
        "$KV.tasks.work.*",
    }
    assert not [each for each in found.publish if "other" in each]
    assert found.subscribe == (
        "signals.*.tasks.work.>",
        "signals.*.cancellations.work",
        "signals.*.cancellations.work.>",
    )


def test_a_subscriber_may_take_for_its_own_groups_and_put_away_what_it_cannot_process() -> None:
    declared = Declared(
        {"news": TopicSpec(), "orders": TopicSpec(partitions=2, dead_letter=None), "other": TopicSpec()}, []
    )
    subscribes = {"to": [{"topic": "news"}, {"topic": "orders"}], "rules": [{"actions": ["subscribe"]}]}
    found = granted(declared, subscribes=subscribes)
    own = [
        *(("news", each) for each in ("worker", "worker_alice")),
        *(("orders", each) for each in ("worker_0", "worker_1", "worker_alice_0", "worker_alice_1")),
    ]
    assert set(found.publish) == {
        *(f"{NEXT}.TOPIC_{topic}.{consumer}" for topic, consumer in own),
        *(f"$JS.ACK.TOPIC_{topic}.{consumer}.>" for topic, consumer in own),
        *(f"WEFT.API.STREAM.INFO.TOPIC_{topic}" for topic in ("news", "orders")),
        "topics.dead-letters.*.news.worker",
        "topics.dead-letters.*.news.worker_alice",
        *CONTEXTS,
    }
    assert found.subscribe == ()
    door = granted(declared, who=operator_id("weft.local", "ops", "door"), subscribes=subscribes)
    assert door == MessageGrant(CONTEXTS)  # it has no group


def test_the_topic_of_dead_letters_is_there_without_being_declared() -> None:
    reads = {"to": [{"topic": "dead-letters"}]}
    found = granted(Declared({}, []), reads=reads)
    assert {"topics.dead-letters.>", f"{NEXT}.TOPIC_dead-letters.worker"} <= set(found.publish)


def test_only_gateways_take_from_the_queue_of_webhooks_whatever_policies_say() -> None:
    consumer = f"{NEXT}.QUEUE_weft-webhooks.LANE_1"
    everything = Declared({"news": TopicSpec()}, ["work", "weft-webhooks"], ["door"])
    all_allowed = message_grants({}, ALICE, everything)
    assert "queues.weft-webhooks.*" in all_allowed.publish
    assert not [each for each in all_allowed.publish if "_weft-webhooks" in each]
    gateway = agent_id("weft.local", "door", "one")
    found = granted(everything, who=gateway, some={"to": [{"queue": "work"}, {"topic": "news"}]})
    assert {consumer, "$JS.ACK.QUEUE_weft-webhooks.*.>"} <= set(found.publish)
    assert {each.rpartition(".")[2] for each in found.publish if ".STREAM.INFO." in each} >= {
        *("KV_tasks", "KV_task-events", "TOPIC_news"),
        *(f"{kind}_{queue}" for kind in ("QUEUE", "LATER", "DEAD") for queue in ("work", "weft-webhooks")),
    }
    operator = operator_id("weft.local", "door", "one")
    assert consumer not in message_grants({}, operator, everything).publish


def test_labels_that_the_authority_attested_count() -> None:
    news = {"from": [{"labels": {"team": "a"}}], "to": [{"topic": "news"}]}
    declared = Declared({"news": TopicSpec()}, [])
    assert "topics.news.>" in granted(declared, labels={"team": "a"}, news=news).publish
    assert granted(declared, news=news) == MessageGrant(CONTEXTS)


@pytest.mark.parametrize("tenant", ["acme", "acme corp", "*", ">", "a.b", "h_x", "Zürich"])
def test_everybody_may_use_the_contexts_of_its_own_tenant_and_none_of_another(tenant: str) -> None:
    publish = granted(Declared({}, []), labels={"tenant": tenant}).publish
    [token] = {each.rsplit(".", 2)[1] for each in publish}
    assert publish == tuple(each.replace("default", token) for each in CONTEXTS)
    assert re.fullmatch("[-_A-Za-z0-9]+", token)
    assert (token == tenant) == (tenant == "acme")


def test_of_very_many_topics_own_groups_are_granted_by_name_and_never_a_lane_or_another_group() -> None:
    declared = Declared({f"t{n}": TopicSpec(partitions=16) for n in range(100)}, ["work"])
    found = granted(declared, topics={"to": [{"topic": f"t{n}"} for n in range(100)]})
    taking = {each.removeprefix(f"{NEXT}.") for each in found.publish if each.startswith(NEXT)}
    assert taking == {f"*.{group}_{n}" for group in ("worker", "worker_alice") for n in range(16)}
    few = Declared({f"t{n}": TopicSpec() for n in range(MAX_CONSUMERS // 2 - 1)}, [])
    exact = message_grants({}, ALICE, few).publish
    assert not [each for each in exact if ".*." in each.removeprefix("topics.dead-letters.*.")]


def question(**changes: Any) -> bytes:
    content = {
        "user_nkey": "U1",
        "server_id": {"id": "N1"},
        "client_info": {"host": "127.0.0.1", "name": "n"},
        "client_tls": {"verified_chains": [["leaf", "intermediate", "root"]]},
        **changes,
    }
    payload = base64.urlsafe_b64encode(json.dumps({"nats": content}).encode()).rstrip(b"=")
    return b"h." + payload + b".s"


def claims(token: str, seed: bytes) -> Any:
    """What stands in a JWT, whose signature is checked."""
    signed, _, signature = token.rpartition(".")
    pair = nkeys.from_seed(seed)
    assert pair.verify(signed.encode(), base64.urlsafe_b64decode(signature + "=="))
    payload = signed.split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert found["iss"] == public_nkey(seed)
    return found


async def test_an_answer_is_signed_and_an_empty_list_refuses_everything() -> None:
    seed = account_seed()
    seen: list[ConnectingClient] = []

    async def decide(client: ConnectingClient) -> Grant:
        seen.append(client)
        return Grant("me", ("a.b",), (), LATER)

    answer = claims(await answered(question(), decide, nkeys.from_seed(seed)), seed)
    assert (answer["aud"], answer["sub"]) == ("N1", "U1")
    user = claims(answer["nats"]["jwt"], seed)
    assert (user["aud"], user["sub"], user["name"], user["exp"]) == (MEMBER_ACCOUNT, "U1", "me", int(LATER))
    assert (user["nats"]["pub"], user["nats"]["sub"]) == ({"allow": ["a.b"]}, {"deny": [">"]})
    assert seen == [ConnectingClient(b"leaf\nintermediate", "127.0.0.1", "n")]


@pytest.mark.parametrize("outcome", [Denied("no"), RuntimeError("broken"), Grant("me", (">",), (">",), 1.0)])
async def test_what_cannot_be_granted_is_refused(outcome: Grant | Exception) -> None:
    seed = account_seed()

    async def decide(_: ConnectingClient) -> Grant:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    answer = claims(await answered(question(), decide, nkeys.from_seed(seed)), seed)
    assert "jwt" not in answer["nats"]
    assert answer["nats"]["error"] in {"denied", "undecided"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a.b",
        b"a.b.c",
        b"a." + base64.urlsafe_b64encode(b"[" * 5000) + b".c",
        b"a." + base64.urlsafe_b64encode(b'{"nats": 1}') + b".c",
        question(client_tls={"verified_chains": [[1, 2]]}),
        question(client_info=None),
        question(user_nkey="x" * 300_000),
    ],
)
async def test_a_question_that_cannot_be_read_gets_no_answer(data: bytes) -> None:
    async def decide(_: ConnectingClient) -> Grant:
        raise AssertionError("nothing to decide")

    with pytest.raises(ValueError, match=r".+"):
        await answered(data, decide, nkeys.from_seed(account_seed()))


def test_a_file_that_holds_no_seed_is_named_without_its_content(tmp_path: Path) -> None:
    file = tmp_path / "issuer.seed"
    file.write_text("SAsecretbutnot")
    with pytest.raises(InvalidRequest, match=r"issuer\.seed") as raised:
        read_seed(file)
    assert "SAsecret" not in raised.value.detail
