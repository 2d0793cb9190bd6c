"""Applying, reading and deleting resources."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from weft.errors import Conflict, InvalidResource, MeshError, NotFound, Unavailable
from weft.model.manifest import Document, check_together, dump_manifest
from weft.model.resource import DECLARED_IN, AnyResource
from weft.model.secret import SecretSpec
from weft.model.unchangeable import forbidden_changes
from weft.resources.codec import ResourceCodec
from weft.resources.mesh_uid import MeshUid
from weft.resources.turn import BUCKET as TURNS
from weft.resources.turn import TextCodec, Turn
from weft.store.bucket import Bucket, Entry, Store

BUCKET = "resources"


class Outcome(StrEnum):
    """What applying a resource did."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Applied:
    """One resource that was applied, as it stands now."""

    resource: AnyResource
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Difference:
    """What applying a resource would change, as YAML before and after."""

    kind: str
    name: str
    before: str | None
    after: str


class Preparation(Protocol):
    """Makes of a resource what is to be stored: seals the values of Secrets."""

    def __call__(self, document: Document, stored: AnyResource | None) -> AnyResource:
        """The resource of `document`, where `stored` is what it replaces. Raises InvalidResource."""
        ...


def without_secrets(document: Document, stored: AnyResource | None) -> AnyResource:  # noqa: ARG001
    """The Preparation where nothing can seal: raises InvalidResource for a Secret."""
    if isinstance(document.resource.spec, SecretSpec):
        message = "this control plane has no sealing key, so it keeps no secrets"
        raise InvalidResource([document.problem(message, ("kind",))])
    return document.resource


class Resources:
    """The declared resources of a mesh."""

    def __init__(
        self,
        bucket: Bucket[AnyResource],
        turn: Turn,
        uid: MeshUid,
        prepare: Preparation = without_secrets,
    ) -> None:
        self.bucket = bucket
        self.uid = uid
        """Which mesh this is."""
        self._turn = turn
        self._prepare = prepare

    @classmethod
    async def open(cls, store: Store, prepare: Preparation = without_secrets) -> Resources:
        """Open the resources in `store`. Whatever is applied goes through `prepare` first."""
        uid = MeshUid(await store.bucket(TURNS, TextCodec()))
        return cls(await store.bucket(BUCKET, ResourceCodec()), await Turn.open(store), uid, prepare)

    async def apply(self, documents: Sequence[Document], *, dry_run: bool = False) -> list[Applied]:
        """Write the resources of a manifest, after checking them together with what is declared already.

        Nothing is written unless everything is valid and every resourceVersion given is the current one;
        one manifest is applied at a time, whichever control plane takes it. With `dry_run` nothing is written
        at all. Raises InvalidResource and Conflict before the first write. If the store fails midway,
        Unavailable says what was written and what was not; applying again completes it.
        """
        if dry_run:
            return await self._plans(documents)
        async with self._turn.taken() as deadline:
            return await self._write(await self._plans(documents), deadline)

    async def diff(self, documents: Sequence[Document]) -> list[Difference]:
        """What `apply` would change. Raises InvalidResource."""
        stored = await self._stored()
        check_together(documents, (entry.value for entry in stored.values()))
        differences = []
        _check_changes(documents, stored)
        for document in documents:
            current = stored.get(document.resource.key)
            resource = self._prepared(document, current)
            if _plan(resource, current).outcome is not Outcome.UNCHANGED:
                before = dump_manifest([_declared(current.value)]) if current else None
                after = dump_manifest([_declared(resource)])
                differences.append(Difference(resource.kind, resource.metadata.name, before, after))
        return differences

    async def get(self, kind: str, name: str) -> AnyResource:
        """The resource `name` of `kind`. Raises NotFound."""
        entry = await self.bucket.get(_key(kind, name))
        if entry is None:
            raise _not_found(kind, name)
        return versioned(entry)

    async def delete(self, kind: str, name: str, *, resource_version: str | None = None) -> None:
        """Delete a resource, if given only at `resource_version` (else Conflict). Raises NotFound."""
        async with self._turn.taken():
            entry = await self.bucket.get(_key(kind, name))
            if entry is None:
                raise _not_found(kind, name)
            if resource_version is not None and resource_version != str(entry.revision):
                raise _stale(kind, name, resource_version, entry.revision)
            await self.bucket.delete(entry.key, revision=entry.revision)

    async def _stored(self) -> dict[str, Entry[AnyResource]]:
        return {entry.key: entry for entry in await self.bucket.entries()}

    async def _plans(self, documents: Sequence[Document]) -> list[Applied]:
        """What applying `documents` would make of the resources; raises if they cannot be applied."""
        stored = await self._stored()
        check_together(documents, (entry.value for entry in stored.values()))
        _check_changes(documents, stored)
        for each in documents:
            _check_version(each.resource, stored.get(each.resource.key))
        return [self._planned(each, stored.get(each.resource.key)) for each in documents]

    def _planned(self, document: Document, current: Entry[AnyResource] | None) -> Applied:
        return _plan(self._prepared(document, current), current)

    def _prepared(self, document: Document, current: Entry[AnyResource] | None) -> AnyResource:
        """The resource of `document` as it is to be stored."""
        if current is None:
            return self._prepare(document, None)
        return _still_declared_in(self._prepare(document, current.value), current.value)

    async def _write(self, plans: Sequence[Applied], deadline: float) -> list[Applied]:
        """Do what was planned, until `deadline` (the event loop's time)."""
        done: list[Applied] = []
        try:
            async with asyncio.timeout_at(deadline):
                for plan in plans:
                    done.append(await self._write_one(plan))  # noqa: PERF401 -- kept when one fails
        except TimeoutError as error:
            raise _partial(Unavailable("the store is too slow"), plans, len(done)) from error
        except MeshError as error:
            raise _partial(error, plans, len(done)) from error
        return done

    async def _write_one(self, plan: Applied) -> Applied:
        key, version = plan.resource.key, plan.resource.metadata.resource_version
        if plan.outcome is Outcome.UNCHANGED:
            return plan
        if version is None:
            revision = await self.bucket.create(key, plan.resource)
        else:
            revision = await self.bucket.update(key, plan.resource, revision=int(version))
        return Applied(versioned(Entry(key, plan.resource, revision)), plan.outcome)

    async def list(self, kind: str) -> list[AnyResource]:
        """All resources of `kind`, by name."""
        return [versioned(entry) for entry in await self.bucket.entries(kind.lower())]


def versioned(entry: Entry[AnyResource]) -> AnyResource:
    """The resource of an entry, with the entry's revision as its resourceVersion."""
    metadata = entry.value.metadata.model_copy(update={"resource_version": str(entry.revision)})
    return entry.value.model_copy(update={"metadata": metadata})


def _plan(resource: AnyResource, current: Entry[AnyResource] | None) -> Applied:
    """What is to stand in the store, at the resourceVersion it is to replace, after applying `resource`."""
    if current is None:
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Applied(_stamped(resource, version=None, generation=1, created=now), Outcome.CREATED)
    # Compared as documents: a default that is written out is declared, and overrides the mesh's own.
    before, after = _declared(current.value).stored(), _declared(resource).stored()
    if before == after:
        return Applied(versioned(current), Outcome.UNCHANGED)
    stamped = _stamped(
        resource,
        version=str(current.revision),
        generation=(current.value.metadata.generation or 1) + (before["spec"] != after["spec"]),
        created=current.value.metadata.creation_timestamp,
    )
    return Applied(stamped, Outcome.CONFIGURED)


def _declared(resource: AnyResource) -> AnyResource:
    """`resource` without what the mesh itself sets."""
    return _stamped(resource, version=None, generation=None, created=None)


def _stamped(
    resource: AnyResource, *, version: str | None, generation: int | None, created: str | None
) -> AnyResource:
    stamps = {"resource_version": version, "generation": generation, "creation_timestamp": created}
    return resource.model_copy(update={"metadata": resource.metadata.model_copy(update=stamps)})


def _still_declared_in(resource: AnyResource, before: AnyResource) -> AnyResource:
    """`resource` with the mark of where else it is declared, as `before`, unless it says so itself.

    Whoever applies a manifest of their own knows nothing of that.
    """
    mark = before.metadata.annotations.get(DECLARED_IN)
    if mark is None or DECLARED_IN in resource.metadata.annotations:
        return resource
    annotations = {**resource.metadata.annotations, DECLARED_IN: mark}
    metadata = resource.metadata.model_copy(update={"annotations": annotations})
    return resource.model_copy(update={"metadata": metadata})


def _check_changes(documents: Sequence[Document], stored: Mapping[str, Entry[AnyResource]]) -> None:
    """Raise InvalidResource for what may not be changed."""
    problems = [
        each.problem(message, path)
        for each in documents
        if (current := stored.get(each.resource.key)) is not None
        for path, message in forbidden_changes(current.value, each.resource)
    ]
    if problems:
        raise InvalidResource(problems)


def _check_version(resource: AnyResource, current: Entry[AnyResource] | None) -> None:
    given = resource.metadata.resource_version
    found = current.revision if current else None
    if given is not None and given != str(found):
        raise _stale(resource.kind, resource.metadata.name, given, found)


def _stale(kind: str, name: str, given: str, found: int | None) -> Conflict:
    where = f"it stands at {found}" if found is not None else "it does not exist (any more)"
    return Conflict(
        f"{kind} {name!r} is not at resourceVersion {given}: {where}; "
        "get it anew, make your change there, and apply that"
    )


def _not_found(kind: str, name: str) -> NotFound:
    return NotFound(f"there is no {kind} {name!r}; see which there are with 'weft get {kind.lower()}'")


def _partial(error: MeshError, plans: Sequence[Applied], done: int) -> MeshError:
    """`error`, which came after the first `done` of the `plans`, with what it leaves behind."""
    names = [f"{each.resource.kind} {each.resource.metadata.name!r}" for each in plans]
    # A write that was not refused may have arrived all the same, if only the answer was lost.
    sure = done if isinstance(error, Conflict) else done + 1
    parts = {"written": names[:done], "uncertain": names[done:sure], "not written": names[sure:]}
    told = "; ".join(f"{what}: {', '.join(which)}" for what, which in parts.items() if which)
    return type(error)(f"{error.detail} ({told}; applying again completes it)")


def _key(kind: str, name: str) -> str:
    return f"{kind.lower()}.{name}"
