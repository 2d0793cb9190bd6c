"""A page: what is shown to one viewer in one browser tab. How to write one is told in `weft.dashboard`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nicegui import Client, background_tasks, core, ui
from starlette.requests import Request

from weft.dashboard.feeds import News, Shape, Subscription
from weft.dashboard.frame import Frame
from weft.dashboard.viewer import Viewer
from weft.errors import MeshError
from weft.model.operator import Scope

if TYPE_CHECKING:
    from weft.dashboard.application import Dashboard

FIRST_NEWS = 0.5
"""Seconds that a page waits for its first data, to come with it rather than after it."""

BUILD_TIMEOUT = 60.0
"""Seconds in which a page has to be built, with what it asks of the API; after that it is an error instead.
Long, since on a busy machine it does take seconds."""

_FAREWELL = 1.0  # seconds a browser has to leave a page that has ended

logger = logging.getLogger(__name__)

Build = Callable[["Page"], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Place:
    """One page, as it is declared."""

    path: str
    title: str
    icon: str
    menu: int | None
    build: Build


_places: list[Place] = []


def page(path: str, *, title: str, icon: str = "", menu: int | None = None) -> Callable[[Build], Build]:
    """Declare a page at `path` (as in FastAPI) under the dashboard.

    `menu` is its place in the menu, from the top; without one it is not there. `icon` is a Material Icon.
    """

    def declare(build: Build) -> Build:
        _places.append(Place(path, title, icon, menu, build))
        return build

    return declare


def register() -> None:
    """Make all declared pages known to NiceGUI."""
    for place in _places:
        ui.page(place.path, response_timeout=BUILD_TIMEOUT)(_opening(place))
    ui.page("/{_:path}", response_timeout=BUILD_TIMEOUT)(_opening(Place("", "Not found", "", None, _nothing)))


def link_to(*segments: str, **query: str) -> str:
    """The address of a page: `link_to("agents", "planner", "planner-1")`."""
    path = "/dashboard/" + "/".join(quote(each, safe="") for each in segments)
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value)
    return f"{path}?{asked}" if asked else path


class Page:
    """What a page's function works with."""

    def __init__(self, client: Client, request: Request, place: Place) -> None:
        state = request.scope["state"]
        self.viewer: Viewer = state["viewer"]
        self.parameters: Mapping[str, str] = dict(request.path_params)
        self.query: Mapping[str, str] = dict(request.query_params)
        self.client = client
        self._dashboard: Dashboard = state["dashboard"]
        self._subscriptions: list[Subscription] = []
        self._stops: list[Callable[[], None]] = []
        self._visible = True
        self._building = True
        self._awaited: set[str] = set()
        self._arrived = asyncio.Event()
        self.frame = Frame(self.viewer, place.path, place.title, self._menu(), request.cookies)

    @staticmethod
    def _menu() -> list[tuple[str, str, str]]:
        shown = sorted(
            (each.menu, each.title, each.path, each.icon) for each in _places if each.menu is not None
        )
        return [(title, path, icon) for _, title, path, icon in shown]

    def title(self, text: str) -> None:
        """Call the page `text`, in its heading and in the browser."""
        self.frame.name(text)

    def watch(
        self, path: str, show: Callable[[Any], None], *, every: float = 2.0, shape: Shape | None = None
    ) -> Callable[[], None]:
        """Call `show` with what the API answers at `path`, now and about `every` so many seconds.

        `shape`, a function of a module that changes nothing, makes of the answer what is to be shown: once
        for all tabs. What this returns ends the watch, as the end of the page does.
        """

        def deliver(news: News) -> None:
            self._awaited.discard(path)
            if not self._awaited:
                self._arrived.set()
            with self.client:
                self.frame.problem(path, news.error)
                if news.data is not None:
                    show(news.data)

        subscription = Subscription(self.viewer, deliver, self._active, shape)
        self._subscriptions.append(subscription)
        self._awaited.add(path)
        stop = self._dashboard.feeds.subscribe(path, every, subscription)

        def end() -> None:
            stop()
            self.frame.problem(path, None)
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
                self._stops.remove(end)

        self._stops.append(end)
        return end

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the API answers this viewer, as JSON types. Raises MeshError."""
        return await self._dashboard.api.ask(self.viewer, method, path, body)

    def refresh(self, path: str) -> None:
        """Have what is watched at `path` asked for at once."""
        self._dashboard.feeds.refresh(self.viewer, path)

    def may(self, scope: Scope) -> bool:
        """Whether the viewer may do what `scope` is needed for."""
        return self.viewer.may(scope)

    def action(
        self,
        text: str,
        run: Callable[[], Awaitable[str]],
        *,
        confirm: str,
        scope: Scope = Scope.OPERATOR,
        icon: str | None = None,
    ) -> ui.button | None:
        """A button that changes something, for viewers with `scope`; others see none, and get None.

        After a yes to `confirm` it does `run`, whose answer is shown; so is the MeshError it raises.
        """
        if not self.may(scope):
            return None

        async def ask() -> None:
            with self.client, ui.dialog(value=True) as dialog, ui.card().classes("weft-panel"):
                dialog.props('aria-label="Confirmation"')
                ui.label(confirm).classes("weft-confirm")
                with ui.row().classes("justify-end w-full"):
                    ui.button("Cancel", on_click=lambda: dialog.submit(False)).props("flat no-caps autofocus")
                    ui.button(text, on_click=lambda: dialog.submit(True)).props("unelevated no-caps")
            agreed = await dialog
            dialog.delete()
            if agreed:
                await self._do(run)

        return ui.button(text, icon=icon, on_click=ask).props("outline no-caps dense padding='2px 10px'")

    async def _do(self, run: Callable[[], Awaitable[str]]) -> None:
        with self.client:
            try:
                ui.notify(await run(), type="positive", position="bottom-left")
            except MeshError as error:
                ui.notify(error.detail, type="negative", position="bottom-left", timeout=10_000)

    def script(self, function: str, *arguments: Any) -> None:
        """Call `function` of the dashboard's own script in the browser."""
        given = ", ".join(json.dumps(each) for each in arguments)
        self.client.run_javascript(f"{function}({given})")

    async def _open(self, build: Build) -> None:
        feeds = self._dashboard.feeds
        feeds.attend(self, self.viewer, self._end)
        self.client.on_delete(self._close)
        self.client.on_connect(lambda: feeds.wake(self._subscriptions))
        ui.on("weft-visible", lambda event: self._see(event.args))
        try:
            built = build(self)
            if isawaitable(built):
                await built
        except MeshError as error:
            self.frame.problem("page", error)
        except Exception:  # a page's fault is that page's: its viewer is told, and the log says why
            logger.exception("the page %s failed", self.client.page.path)
            self.frame.problem("page", MeshError("this page failed; the control plane's log says why"))
        if self._awaited:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_NEWS):
                    await self._arrived.wait()
        self._building = False

    def _active(self) -> bool:
        if self.client.is_deleted or not self._visible:
            return False
        return self._building or self.client.has_socket_connection

    def _see(self, visible: object) -> None:
        self._visible = bool(visible)
        if self._visible:
            self._dashboard.feeds.wake(self._subscriptions)

    def _close(self) -> None:
        self._dashboard.feeds.leave(self)
        for stop in [*self._stops]:
            stop()

    def _end(self) -> None:
        """The viewer is signed out."""
        self._close()
        self.script("location.replace", "/dashboard/login?ended")
        background_tasks.create(self._cut(), name="end of a page")

    async def _cut(self) -> None:
        await asyncio.sleep(_FAREWELL)
        sockets = [*self.client._socket_to_document_id]
        if not self.client.is_deleted:
            self.client.delete()
        for each in sockets:
            await core.sio.disconnect(each)


def _opening(place: Place) -> Callable[..., Awaitable[None]]:
    async def open_page(client: Client, request: Request) -> None:
        await Page(client, request, place)._open(place.build)

    return open_page


def _nothing(_view: Page) -> None:
    ui.label("There is no such page.").classes("weft-empty")
