"""What identities are granted in NATS, and how the servers are told."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import nkeys
import pytest

from weft.controlplane.nats_access import MessageGrant, grant, message_grants
from weft.errors import Denied, InvalidRequest
from weft.model.access import AccessPolicySpec
from weft.model.spiffe import SpiffeId, agent_id, control_id, operator_id
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
            "$KV.instances.worker.alice",
            "WEFT.API.STREAM.INFO.KV_instances",
            "WEFT.API.STREAM.MSG.GET.KV_instances",
            "audit.agent.worker.alice",
            "WEFT.API.STREAM.INFO.audit",
        ),
        subscribe=("_INBOX.agent.worker.alice.>",),
        expires_at=LATER,
    )


def test_an_operator_may_report_only_and_the_control_plane_may_do_everything() -> None:
    door = grant(operator_id("weft.local", "ops", "door"), expires_at=LATER)
    assert door.publish == ("audit.operator.ops.door", "WEFT.API.STREAM.INFO.audit")
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


def test_topics_and_queues_are_granted_as_policies_decide_labels_included() -> None:
    policies = {
        "none": policy({"default": "deny"}),
        "news": policy({"from": [{"labels": {"team": "a"}}], "to": [{"topic": "news"}], "effect": "allow"}),
        "work": policy({"from": [{"type": "worker"}], "to": [{"queue": "work"}], "effect": "allow"}),
    }
    granted = message_grants(policies, ALICE, ["news", "other"], ["work"], labels={"team": "a"})
    assert granted == MessageGrant(("topics.news", "queues.work"), ("topics.news", "queues.work"))
    assert message_grants(policies, ALICE, ["news"], ["work"]) == MessageGrant(
        ("queues.work",), ("queues.work",)
    )


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
