"""Custom resources and the mesh's own are kept the same, both ways.

Each of Weft's kinds has a reconciler; its keys are names, since a mesh has one resource of a kind and name:

- A custom resource that was changed is written into the mesh. One that was not, while the mesh's was, is
  patched as that. If both were changed, the cluster's is in force, and an event says so.
- What is declared in several namespaces is that of Weft's own, or else of the oldest; the others have the
  reason `Conflict`.
- What was declared in the mesh itself is mirrored into Weft's own namespace, with the label
  `weft.dev/origin`. Nobody in another namespace can take it over: it has to be deleted first.
- A custom resource that is gone is deleted from the mesh. What is gone from the mesh is made there again; a
  mirror goes instead, if the mesh is the one that it was.

Nothing of it needs a finalizer: a namespace that is deleted is not held up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from weft.errors import Conflict, InvalidRequest, InvalidResource
from weft.kubernetes.controller.conditions import Condition, found_condition
from weft.kubernetes.controller.definitions import DEFINITION
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, NAMESPACE, Document, Key, key_of
from weft.kubernetes.controller.loop import Source
from weft.kubernetes.controller.mesh import MeshAway, mesh_key
from weft.kubernetes.controller.parts import Parts
from weft.kubernetes.controller.resources import (
    SECRET_VERSIONS,
    Mark,
    as_in_mesh,
    is_mirror,
    labels_of,
    mark_of,
    mesh_resource,
    mirror,
    parsed,
    problems,
    same_declaration,
    same_spec,
)
from weft.kubernetes.controller.secret_values import Unresolved, secret_values
from weft.kubernetes.custom_resources import READY

logger = logging.getLogger(__name__)

RETRY: Final = 30.0
"""Seconds until what the mesh refused is tried again: what it needs may be declared by then.

At first less: what belongs together is often declared together, in any order.
"""

_FIRST_RETRY = 0.5

AWAY_RETRY: Final = 5.0
"""Seconds until a mesh that was away is tried again."""

SECRET_CHECK: Final = 60.0
"""Seconds between looks whether the values of a Secret are still the same."""

_BEHIND = 1.0  # seconds until what is followed has caught up with what was read

APPLIED: Final = Condition(READY, "True", "Applied", "the mesh has it as it is declared")

_SETTLED: Final = {"Applied", "DefinitionOutdated", "NotRepresentable"}
"""Reasons with which nothing is left to be done until somebody changes something."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The custom resources of a name, by what they are to the mesh."""

    force: Document | None
    """The one that is in force."""
    outdone: Sequence[Document]
    """All others."""


def standing(found: Sequence[Document], namespace: str) -> Standing:
    """How the custom resources of a name stand to each other.

    Those in `namespace`, which is Weft's own, go before all others: whoever may declare something in a
    namespace of his own is not to put aside what holds for the whole mesh. Of others the oldest counts.
    """
    ranked = sorted(found, key=lambda each: (each["metadata"]["namespace"] != namespace, _age(each)))
    return Standing(ranked[0] if ranked else None, ranked[1:])


def _age(custom: Document) -> tuple[str, str]:
    metadata = custom["metadata"]
    return str(metadata.get("creationTimestamp", "")), metadata["namespace"]


class MeshSync:
    """Keeps the resources of a kind the same in a cluster and a mesh."""

    def __init__(self, kind: str, parts: Parts) -> None:
        self.name = f"sync of {kind}"
        self._kind = CUSTOM_KINDS[kind]
        self._parts = parts
        self._custom = parts.following(self._kind)
        self._resources = parts.mesh.kind(kind)
        self._refused: dict[Key, float] = {}
        """After how many seconds what was refused was tried again last."""
        self.sources = (Source(self._custom, _by_name), Source(self._resources, _by_name))

    async def reconcile(self, key: Key) -> float | None:
        """See to the resources of a name."""
        if self._custom.missing:
            return RETRY
        found = [each for at, each in self._custom.objects.items() if at.name == key.name]
        now = standing(found, self._parts.namespace)
        try:
            if now.force is None:
                return await self._undeclared(key.name)
            await self._tell_others(now, now.force)
            return await self._declared(now.force)
        except MeshAway as error:
            logger.debug("%s %s waits for the mesh: %s", self.name, key, error.detail)
            return AWAY_RETRY

    async def _tell_others(self, now: Standing, force: Document) -> None:
        place = key_of(force).namespace
        why = "which goes before all others" if place == self._parts.namespace else "by an older one"
        for each in now.outdone:
            text = (
                f"{self._kind.kind} {key_of(each).name!r} is declared in namespace {place} already, {why}, "
                "and is in force: a mesh has one of a name; delete one of them, or give it another name"
            )
            await self._report(each, Condition(READY, "False", "Conflict", text))

    async def _declared(self, known: Document) -> float | None:
        """See to the custom resource that is in force."""
        found = self._resources.objects.get(mesh_key(key_of(known).name))
        secret = self._kind.kind == "Secret"
        if not secret and found is not None and self._parts.mesh.reachable and self._settled(known, found):
            return None
        custom = await self._parts.cluster.get(self._kind, key_of(known))
        if custom is None:
            self._refused.pop(key_of(known), None)
            return None  # The watch tells of it in a moment.
        try:
            await self._sync(custom)
        except Unresolved as error:
            await self._report(custom, Condition(READY, "False", error.reason, error.message))
            return self._retry(custom)
        except InvalidRequest as error:
            text = problems(error) if isinstance(error, InvalidResource) else error.detail
            await self._report(
                custom, Condition(READY, "False", "Invalid", f"the mesh does not take it: {text}")
            )
            return self._retry(custom)
        except MeshAway as error:
            if _pending(custom):
                text = f"{error.detail}; it is tried again until it answers"
                await self._report(custom, Condition(READY, "Unknown", "MeshUnavailable", text))
            raise
        self._refused.pop(key_of(custom), None)
        return SECRET_CHECK if secret else None

    def _retry(self, custom: Document) -> float:
        key = key_of(custom)
        self._refused[key] = pause = min(RETRY, self._refused.get(key, _FIRST_RETRY / 2) * 2)
        return pause

    async def _sync(self, custom: Document) -> None:
        name = key_of(custom).name
        found = await self._parts.mesh.resource(self._kind.kind, name)
        status = custom.get("status") or {}
        if found is None and is_mirror(custom) and await self._known_to_this_mesh(status):
            await self._parts.cluster.delete(self._kind, key_of(custom), uid=custom["metadata"]["uid"])
            return
        self._check_free(custom, found)
        wanted = await self._wanted(custom, found)
        if found is None:
            await self._put(custom, wanted)
            return
        _check(found)
        touched = found["metadata"]["resourceVersion"] != status.get("meshRevision")
        values = self._kind.kind == "Secret"
        if same_declaration(wanted, found) and not (touched and values):
            await self._settle(custom, found["metadata"]["resourceVersion"])
        elif not values and self._follows_mesh(custom, found, touched=touched):
            await self._take(custom, found)
        elif touched or _pending(custom) or values:
            overwrites = touched and mark_of(found) in {None, self._mark(custom)} and not values
            await self._put(custom, wanted)
            if overwrites:
                await self._tell_overwritten(custom)
        elif not self._settled(custom, found):
            # Only labels differ, or the mark: what is declared stays as the mesh has it.
            await self._put(custom, {**wanted, "spec": found["spec"]})

    def _check_free(self, custom: Document, found: Document | None) -> None:
        """Raise Unresolved where the name is that of something which was declared in the mesh itself."""
        known = (custom.get("status") or {}).get("meshRevision")
        if found is None or known or mark_of(found) is not None:
            return
        if key_of(custom).namespace != self._parts.namespace:
            text = (
                f"{self._kind.kind} {key_of(custom).name!r} is declared in the mesh itself, by `weft apply` "
                f"or the like: delete it there, declare this in namespace {self._parts.namespace}, or give "
                "it another name"
            )
            raise Unresolved("Conflict", text)

    def _follows_mesh(self, custom: Document, found: Document, *, touched: bool) -> bool:
        """Whether the custom resource is to be as the mesh's is, rather than the other way."""
        if mark_of(found) not in {None, self._mark(custom)} and not is_mirror(custom):
            return False
        if is_mirror(custom) and not (custom.get("status") or {}).get("meshRevision"):
            return True
        return touched and not _pending(custom)

    async def _wanted(self, custom: Document, found: Document | None) -> Document:
        mark = self._mark(custom)
        spec: dict[str, Any] = custom.get("spec") or {}
        if self._kind.kind != "Secret":
            return mesh_resource(custom, spec, mark=mark, found=found)
        values = await secret_values(self._parts.cluster, custom)
        spec = {**spec, "data": values.data}
        versions = {SECRET_VERSIONS: values.versions}
        return mesh_resource(custom, spec, mark=mark, found=found, annotations=versions)

    async def _put(self, custom: Document, wanted: Document) -> None:
        await self._settle(custom, await self._parts.mesh.apply(wanted))

    async def _settle(self, custom: Document, revision: str, condition: Condition = APPLIED) -> None:
        fields = {"meshRevision": revision}
        if is_mirror(custom):
            fields["mesh"] = await self._parts.mesh.uid()
        await self._report(custom, condition, fields)

    async def _take(self, custom: Document, found: Document) -> None:
        """Have the custom resource be as the mesh's is."""
        revision = found["metadata"]["resourceVersion"]
        try:
            taken = await self._parts.cluster.replace(self._kind, as_in_mesh(custom, found))
        except InvalidRequest as error:
            text = f"the mesh has it as the cluster cannot have it: {error.detail}"
            await self._settle(custom, revision, Condition(READY, "False", "NotRepresentable", text))
            return
        await self._settle(taken, revision, self._as_taken(taken, found))

    def _as_taken(self, custom: Document, found: Document) -> Condition:
        """Whether the cluster has kept all that the mesh says."""
        declared = {**found, "spec": custom.get("spec") or {}}
        try:
            same = same_spec(parsed(declared), parsed(found))
        except InvalidResource:
            same = False
        if same:
            return APPLIED
        text = (
            f"the cluster does not keep all that the mesh has: its definition of {self._kind.kind} is of "
            "another version of Weft; apply `weft kubernetes crds`"
        )
        return Condition(READY, "False", "DefinitionOutdated", text)

    async def _undeclared(self, name: str) -> float | None:
        """See to what no custom resource declares."""
        found = await self._parts.mesh.resource(self._kind.kind, name)
        if found is None:
            return None
        mark = mark_of(found)
        if mark is not None and mark.cluster == self._parts.cluster_uid:
            if await self._parts.cluster.get(self._kind, Key(mark.namespace, name)) is not None:
                return _BEHIND
            if not await self._is_defined():
                return RETRY
            await self._parts.mesh.delete(self._kind.kind, name, found["metadata"]["resourceVersion"])
            return None
        if self._kind.kind == "Secret":
            return None  # Its values cannot be in the cluster.
        _check(found)
        return await self._mirror(found)

    async def _is_defined(self) -> bool:
        """Whether the cluster has this kind, and is to have it.

        It deletes what there is of a kind with its definition, which nobody may have meant for the mesh.
        """
        name = f"{self._kind.plural}.{self._kind.group}"
        definition = await self._parts.cluster.get(DEFINITION, Key("", name))
        return definition is not None and not definition["metadata"].get("deletionTimestamp")

    async def _mirror(self, found: Document) -> float | None:
        try:
            made = await self._parts.cluster.create(self._kind, mirror(found, self._parts.namespace))
        except Conflict:
            return _BEHIND
        except InvalidRequest as error:
            await self._tell_of_namespace("NotRepresentable", error.detail)
            return None
        await self._settle(made, found["metadata"]["resourceVersion"], self._as_taken(made, found))
        return None

    async def _tell_of_namespace(self, reason: str, text: str) -> None:
        namespace = await self._parts.cluster.get(NAMESPACE, Key("", self._parts.namespace))
        if namespace is not None:
            await self._parts.reports.event(namespace, "Warning", reason, text)

    async def _tell_overwritten(self, custom: Document) -> None:
        text = "what was changed in the mesh is overwritten, since it was changed in the cluster, too"
        await self._parts.reports.event(custom, "Warning", "MeshChangeOverwritten", text)

    async def _known_to_this_mesh(self, status: Document) -> bool:
        """Whether the mesh is the one that had it: not an emptied one."""
        return bool(status.get("meshRevision")) and status.get("mesh") == await self._parts.mesh.uid()

    async def _report(
        self, custom: Document, condition: Condition, fields: dict[str, str] | None = None
    ) -> None:
        await self._parts.reports.status(self._kind, custom, [condition], fields=fields)

    def _settled(self, custom: Document, found: Document) -> bool:
        """Whether nothing is to be done."""
        return (
            not _pending(custom)
            and (custom.get("status") or {}).get("meshRevision") == found["metadata"]["resourceVersion"]
            and labels_of(custom) == labels_of(found)
            and mark_of(found) == self._mark(custom)
        )

    def _mark(self, custom: Document) -> Mark:
        return Mark(self._parts.cluster_uid, custom["metadata"]["namespace"])


def _by_name(document: Document) -> Sequence[Key]:
    return (mesh_key(document["metadata"]["name"]),)


def _pending(custom: Document) -> bool:
    """Whether there is something in the custom resource that the mesh has not got."""
    status = custom.get("status") or {}
    ready = found_condition(custom, READY) or {}
    return (
        status.get("observedGeneration") != custom["metadata"].get("generation")
        or ready.get("reason") not in _SETTLED
    )


def _check(found: Document) -> None:
    try:
        parsed(found)
    except InvalidResource as error:
        raise MeshAway(
            f"{found['kind']} {found['metadata']['name']!r} is in the mesh as this controller does not "
            f"know it ({problems(error)}): is it of an older version than the control plane?"
        ) from error
