"""The declared resources of a mesh, followed by the control plane's API."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Final

from weft.aio.backoff import backoff
from weft.aio.reminder import Reminder
from weft.errors import Conflict, InvalidRequest, MeshError, NotFound, Unauthenticated, Unavailable
from weft.kubernetes.controller.following import Known
from weft.kubernetes.controller.kinds import Document, Key
from weft.local.control import ControlApi, document_in, items_in, segment
from weft.sdk.sse import Event

logger = logging.getLogger(__name__)

_RESOURCES: Final = "/v1/resources"


def mesh_key(name: str) -> Key:
    """The key of a resource among those of its kind."""
    return Key("", name)


class MeshAway(Unavailable):
    """The mesh does not answer, or does not let this process: try again later."""


class Mesh:
    """The resources of a mesh, by kind. Every method that asks raises MeshAway if that fails."""

    def __init__(self, api: ControlApi, renewed: Callable[[], ControlApi | None] = lambda: None) -> None:
        """`renewed` gives another client where `api` is not let in any more, if there is one to be had."""
        self.api = api
        self._renewed = renewed
        self._former: list[ControlApi] = []
        self.reachable = False
        """Whether the mesh is followed now."""
        self._kinds: dict[str, MeshKind] = {}
        self._known = asyncio.Event()
        self._followed = False

    def kind(self, kind: str) -> MeshKind:
        """The resources of a kind, which are followed together with those of other kinds."""
        return self._kinds.setdefault(kind, MeshKind(self))

    async def known(self) -> None:
        """Wait until it is known what is there, or that the mesh cannot be reached."""
        await self._known.wait()

    async def run(self) -> None:
        """Follow, without end, whoever asks first; what goes wrong is logged, and tried again."""
        if self._followed:
            await asyncio.Event().wait()
        self._followed = True
        pauses, reminder = backoff(first=0.2, longest=10.0), Reminder(0.0, first=0.0)
        loop = asyncio.get_running_loop()
        while True:
            reason = "the control plane ended the watch"
            try:
                await self._follow()
            except MeshError as error:
                reason = error.detail
                if isinstance(error, Unauthenticated):
                    self._renew()
            if self.reachable:
                pauses = backoff(first=0.2, longest=10.0)
            self.reachable = False
            self._known.set()
            if reminder.due(loop.time()):
                logger.warning("the mesh at %s is not followed: %s", self.api.url, reason)
            await asyncio.sleep(next(pauses))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Within the context, whatever a mesh answers but for what is wrong with the request is MeshAway."""
        try:
            yield
        except (InvalidRequest, Conflict):
            raise
        except MeshError as error:
            if isinstance(error, Unauthenticated):
                self._renew()
            raise MeshAway(error.detail) from error
        except KeyError as error:
            raise MeshAway(f"the control plane's answer has no {error}: is it of this version?") from error

    def _renew(self) -> None:
        renewed = self._renewed()
        if renewed is not None:
            # Closed at the end only: others may be in the middle of asking by it.
            self._former.append(self.api)
            self.api = renewed

    async def close(self) -> None:
        """Close the clients."""
        for each in (*self._former, self.api):
            await each.close()

    async def resource(self, kind: str, name: str) -> Document | None:
        """A resource as it stands now; None if there is none."""
        with self._answering():
            try:
                return await self.api.resource(kind, name)
            except NotFound:
                return None

    async def apply(self, document: Mapping[str, Any]) -> str:
        """Declare a resource; the resourceVersion that it has by now.

        Raises InvalidResource if the mesh does not take it, Conflict if it is not at the version given in it.
        """
        body = {"manifest": json.dumps(document), "file": "", "dryRun": False}
        with self._answering():
            results = items_in(await self.api.ask("POST", _RESOURCES, body), "results")
        if len(results) != 1 or not isinstance(results[0].get("resourceVersion"), str):
            raise MeshAway("the control plane does not say what became of a resource: is it of this version?")
        return str(results[0]["resourceVersion"])

    async def delete(self, kind: str, name: str, resource_version: str) -> None:
        """Delete a resource at that version (else Conflict). One that is not there is no error."""
        query = [("resourceVersion", resource_version)]
        with self._answering():
            try:
                await self.api.ask("DELETE", f"{_RESOURCES}/{segment(kind)}/{segment(name)}", query=query)
            except NotFound:
                return

    async def uid(self) -> str:
        """Which mesh it is now: another one if its store was emptied."""
        with self._answering():
            return str(document_in(await self.api.ask("GET", "/v1/mesh"))["uid"])

    async def _follow(self) -> None:
        found: list[Document] = []
        async with aclosing(self.api.watch(_RESOURCES)) as events:
            async for event in events:
                document = _document(event)
                if self.reachable:
                    self._note(event.name, document)
                elif event.name == "synced":
                    self._take(found)
                else:
                    found.append(document)

    def _take(self, found: list[Document]) -> None:
        by_kind: dict[str, dict[Key, Document]] = {kind: {} for kind in self._kinds}
        for each in found:
            by_kind.setdefault(each["kind"], {})[mesh_key(each["metadata"]["name"])] = each
        self.reachable = True
        self._known.set()
        logger.info("the mesh at %s is followed, with %d resources", self.api.url, len(found))
        for kind, objects in by_kind.items():
            self.kind(kind).take(objects)

    def _note(self, what: str, document: Document) -> None:
        if what == "put":
            self.kind(document["kind"]).put(document)
        elif what == "removed":
            self.kind(document["kind"]).remove(mesh_key(document["name"]))


class MeshKind(Known):
    """The resources of a kind in the mesh."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__()
        self._mesh = mesh

    async def known(self) -> None:
        """Wait until it is known what is there, or that the mesh cannot be reached."""
        await self._mesh.known()

    async def run(self) -> None:
        """Follow them, without end, together with those of other kinds."""
        await self._mesh.run()

    def put(self, document: Document) -> None:
        """This one is there."""
        self._objects[mesh_key(document["metadata"]["name"])] = document
        self._tell(document)

    def remove(self, key: Key) -> None:
        """That one is gone."""
        gone = self._objects.pop(key, None)
        if gone is not None:
            self._tell(gone)


def _document(event: Event) -> Document:
    try:
        document = json.loads(event.data)
    except ValueError as error:
        raise Unavailable(f"the control plane tells of {event.name!r} what is not JSON") from error
    if not isinstance(document, dict):
        raise Unavailable(f"the control plane tells of {event.name!r} what is no object")
    return document
