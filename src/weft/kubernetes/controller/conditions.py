"""What became of an object: conditions in its status, and events about it, which say what to do."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from weft.errors import Conflict, Denied, NotFound
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.kinds import EVENT, ClusterKind, Document, Key, key_of

logger = logging.getLogger(__name__)

CONTROLLER: Final = "weft.dev/controller"
"""Who reports."""

MAX_MESSAGE: Final = 32_768
"""Characters of a condition's message; Kubernetes takes no more."""

_MAX_TOLD = 1000
_MAX_NOTE = 1024  # bytes of an event's note
_MAX_REASON = 128  # characters of an event's reason and action

Status = Literal["True", "False", "Unknown"]

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that holds of an object, or does not."""

    type: str
    status: Status
    reason: str
    """One word in CamelCase, for programs."""
    message: str
    """What happened, and what to do, for people."""


def found_conditions(document: Document) -> list[Document]:
    """The conditions in an object's status."""
    return list((document.get("status") or {}).get("conditions") or ())


def found_condition(document: Document, type_: str) -> Document | None:
    """The condition of a type, if the object has it."""
    return next((each for each in found_conditions(document) if each.get("type") == type_), None)


def with_conditions(
    before: Iterable[Document], given: Sequence[Condition], *, generation: int, now: datetime
) -> list[Document]:
    """The conditions `before`, with those `given` in their place; one that holds on keeps its time."""
    made = {each["type"]: dict(each) for each in before}
    for each in given:
        earlier = made.get(each.type, {})
        same = earlier.get("status") == each.status
        made[each.type] = {
            "type": each.type,
            "status": each.status,
            "reason": each.reason,
            "message": each.message[:MAX_MESSAGE],
            "observedGeneration": generation,
            "lastTransitionTime": earlier["lastTransitionTime"] if same else _seconds(now),
        }
    return list(made.values())


class Reports:
    """Writes conditions and events."""

    def __init__(
        self, cluster: Cluster, instance: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """`instance` is the name of this pod."""
        self._cluster = cluster
        self._instance = instance
        self._clock = clock
        self._told: dict[Key, int] = {}
        """How often events were told that came again."""

    async def status(
        self,
        kind: ClusterKind,
        document: Document,
        conditions: Sequence[Condition],
        *,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Have the status of `document` say `conditions`, beside other ones, and `fields`.

        It is about the generation that `document` has. Nothing is written where nothing changes. A condition
        that is new, or has another status or reason, is told as an event too: as a warning if it is not True.
        An object that is gone is no error. Raises Conflict if it was changed since `document` was read.
        """
        generation = int(document["metadata"].get("generation") or 0)
        before = found_conditions(document)
        after = with_conditions(before, conditions, generation=generation, now=self._clock())
        status = {"observedGeneration": generation, "conditions": after, **(fields or {})}
        found = document.get("status") or {}
        if all(found.get(name) == value for name, value in status.items()):
            return
        patch = {
            "metadata": {"resourceVersion": document["metadata"]["resourceVersion"]},
            "status": status,
        }
        try:
            await self._cluster.merge(kind, key_of(document), patch, subresource="status")
        except NotFound:
            return
        known = {(each["type"], each["status"], each["reason"]) for each in before}
        for each in conditions:
            if (each.type, each.status, each.reason) not in known:
                level: EventType = "Normal" if each.status == "True" else "Warning"
                await self.event(document, level, each.reason, each.message)

    async def event(
        self, about: Document, type_: EventType, reason: str, note: str, *, action: str = "Reconcile"
    ) -> None:
        """Tell of `about` (events.k8s.io/v1); the same again counts as one that goes on.

        One about an object whose namespace is gone, or going, is told nobody.
        """
        metadata = about["metadata"]
        namespace = metadata.get("namespace") or "default"
        text = _cut(note)
        name = _event_name(metadata["name"], str(metadata.get("uid", "")), type_, reason, text)
        now = _microseconds(self._clock())
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": now,
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:_MAX_REASON],
            "action": action,
            "reason": reason[:_MAX_REASON],
            "regarding": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": metadata["name"],
                **{name: metadata[name] for name in ("namespace", "uid") if name in metadata},
            },
            "note": text,
            "type": type_,
        }
        try:
            await self._cluster.create(EVENT, event)
        except Conflict:
            await self._told_again(Key(namespace, name), now)
        except (NotFound, Denied) as error:
            logger.info(
                "an event about %s %s is told nobody: %s", about["kind"], metadata["name"], error.detail
            )

    async def _told_again(self, key: Key, now: str) -> None:
        # Counted here, so that no right is needed to read events.
        count = self._told.pop(key, 1) + 1
        self._told[key] = count
        if len(self._told) > _MAX_TOLD:
            del self._told[next(iter(self._told))]
        try:
            await self._cluster.merge(EVENT, key, {"series": {"count": count, "lastObservedTime": now}})
        except NotFound:
            return


def _event_name(name: str, *parts: str) -> str:
    digest = hashlib.sha256("\0".join((name, *parts)).encode()).hexdigest()[:16]
    return f"{name[:200].rstrip('.-')}.{digest}"


def _cut(note: str) -> str:
    encoded = note.encode()
    if len(encoded) <= _MAX_NOTE:
        return note
    return encoded[: _MAX_NOTE - 3].decode(errors="ignore") + "…"


def _seconds(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _microseconds(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
