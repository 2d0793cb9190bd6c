"""The two accounts of a mesh's NATS, and what the one may ask of the other.

All streams are in the account of the control plane. Members of the mesh (sidecars) are in an account of
their own, and reach only what is exported to it, each only the subjects granted to its identity. Permissions
alone would not do: JetStream sends its answer to whichever subject a request names for it, and where a
consumer delivers to is not checked against permissions either. Within one account, who may ask JetStream
anything can have it write over any key of any bucket.
"""

from __future__ import annotations

from typing import Any

from weft.model.context_keys import CONTEXTS_BUCKET
from weft.model.inbox import A2A_TASKS_BUCKET
from weft.model.message_subjects import TASK_EVENTS_BUCKET, TASKS_BUCKET
from weft.model.offer import OFFERS_BUCKET

CONTROL_ACCOUNT = "WEFT"
MEMBER_ACCOUNT = "MEMBERS"
SYSTEM_ACCOUNT = "SYS"

API = "$JS.API"
"""Where JetStream takes questions of its own account."""

MEMBER_API = "WEFT.API"
"""Where it takes questions of members; the control plane's account knows it by that name too."""

AUDIT = "audit"
"""The journal of changes and denials."""

SIGNALS = "signals"
MEMBER_SIGNALS = f"{SIGNALS}.member"
"""Below it members send signals."""
CONTROL_SIGNALS = f"{SIGNALS}.control"
"""Below it the control plane does."""

BROADCASTS = "broadcasts"
"""Below it replicas of the control plane tell each other what is not kept, and is for nobody else."""

CALLOUT_SUBJECT = "$SYS.REQ.USER.AUTH"
"""Where servers ask about each connection."""

_FOR_MEMBERS = (
    f"{API}.STREAM.INFO.*",
    f"{API}.STREAM.MSG.GET.*",
    f"{API}.DIRECT.GET.*.>",
    "$JS.ACK.>",
    "$KV.instances.>",
    f"$KV.{OFFERS_BUCKET}.>",
    f"$KV.{A2A_TASKS_BUCKET}.>",
    f"$KV.{TASKS_BUCKET}.>",
    f"$KV.{TASK_EVENTS_BUCKET}.>",
    f"$KV.{CONTEXTS_BUCKET}.>",
    f"{AUDIT}.>",
    "topics.>",
    "queues.>",
    "dead.>",
)
_FOR_MEMBERS_IN_PARTS = (f"{API}.CONSUMER.MSG.NEXT.*.*",)
"""Questions with many answers. To make consumers is nothing that members may ask for: where they deliver to
is not checked against permissions."""
_FOR_CONTROL = ("$SYS.REQ.SERVER.*.KICK",)
_FOR_CONTROL_OF_ALL = ("$SYS.REQ.SERVER.PING.CONNZ",)


def accounts(control_user: str) -> dict[str, Any]:
    """The block `accounts` of a server's configuration; `control_user` is the control plane's public nkey."""
    return {
        SYSTEM_ACCOUNT: {
            "exports": [
                *({"service": each, "accounts": [CONTROL_ACCOUNT]} for each in _FOR_CONTROL),
                *(
                    {"service": each, "accounts": [CONTROL_ACCOUNT], "response_type": "stream"}
                    for each in _FOR_CONTROL_OF_ALL
                ),
            ]
        },
        CONTROL_ACCOUNT: {
            "jetstream": "enabled",
            "users": [{"nkey": control_user}],
            "mappings": {f"{MEMBER_API}.>": f"{API}.>"},
            "exports": [
                *({"service": each, "accounts": [MEMBER_ACCOUNT]} for each in _FOR_MEMBERS),
                *(
                    {"service": each, "accounts": [MEMBER_ACCOUNT], "response_type": "stream"}
                    for each in _FOR_MEMBERS_IN_PARTS
                ),
                {"stream": f"{CONTROL_SIGNALS}.>", "accounts": [MEMBER_ACCOUNT]},
            ],
            "imports": [
                *(
                    {"service": {"account": SYSTEM_ACCOUNT, "subject": each}}
                    for each in (*_FOR_CONTROL, *_FOR_CONTROL_OF_ALL)
                ),
                {"stream": {"account": MEMBER_ACCOUNT, "subject": f"{MEMBER_SIGNALS}.>"}},
            ],
        },
        MEMBER_ACCOUNT: {
            "exports": [{"stream": f"{MEMBER_SIGNALS}.>", "accounts": [CONTROL_ACCOUNT]}],
            "imports": [
                *(_import(each) for each in (*_FOR_MEMBERS, *_FOR_MEMBERS_IN_PARTS)),
                {"stream": {"account": CONTROL_ACCOUNT, "subject": f"{CONTROL_SIGNALS}.>"}},
            ],
        },
    }


def authorization(control_user: str, issuer: str) -> dict[str, Any]:
    """The block `authorization`: servers ask about all but `control_user`, and `issuer` signs the answers."""
    return {
        "timeout": 3,
        "auth_callout": {"issuer": issuer, "auth_users": [control_user], "account": CONTROL_ACCOUNT},
    }


def _import(subject: str) -> dict[str, Any]:
    service = {"service": {"account": CONTROL_ACCOUNT, "subject": subject}}
    if subject.startswith(f"{API}."):
        return {**service, "to": MEMBER_API + subject.removeprefix(API)}
    return service
