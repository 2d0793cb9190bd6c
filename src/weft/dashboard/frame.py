"""What surrounds every page: header, menu, problems, and the script in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nicegui import ui

from weft.dashboard.assets import text_of
from weft.dashboard.theme import variables
from weft.dashboard.viewer import Viewer
from weft.errors import Denied, MeshError, NotFound, Unavailable

THEME_COOKIE = "weft-theme"

_HEAD = f"<style>{variables()}{text_of('weft.css')}</style><script>{text_of('weft.js')}</script>"
_THEMES = {"system": None, "light": False, "dark": True}
_THEME_ICONS = {"system": "brightness_auto", "light": "light_mode", "dark": "dark_mode"}


class Frame:
    """The frame of one page. What is made next stands inside of it."""

    def __init__(
        self,
        viewer: Viewer,
        path: str,
        title: str,
        menu: Sequence[tuple[str, str, str]],
        cookies: Mapping[str, str],
    ) -> None:
        self._mesh = viewer.mesh
        self._client = ui.context.client
        self._problems: dict[str, str] = {}
        chosen = cookies.get(THEME_COOKIE, "system")
        self._theme = chosen if chosen in _THEMES else "system"
        ui.add_head_html(_HEAD)
        ui.colors(primary="#1f5fbf", positive="#1c7a46", negative="#c0271d", warning="#945800")
        self._dark = ui.dark_mode(_THEMES[self._theme])
        self._header(viewer)
        self._drawer_of(path, menu)
        ui.on("weft-escape", self._hide_menu)
        # Nothing is taken before it can be told: of what happens until then, NiceGUI does not keep the order.
        self._client.content.props("tabindex=-1 inert")
        self._client.on_connect(self._take_input)
        self._heading = ui.label().classes("weft-h1").props("role=heading aria-level=1")
        self._notice = (
            ui.element("div").classes("weft-notices weft-none w-full").props("role=status aria-live=polite")
        )
        self.name(title)

    def _take_input(self) -> None:
        self._client.content.props(remove="inert")

    def name(self, title: str) -> None:
        """Call the page so."""
        self._heading.set_text(title)
        name = f"{title} · {self._mesh} · Weft"
        self._client.title = name
        if self._client.has_socket_connection:
            ui.page_title(name)

    def problem(self, source: str, error: MeshError | None) -> None:
        """Say that something is wrong with `source`, or that nothing is any more."""
        told = _told(error) if error is not None else ""
        if self._problems.get(source, "") == told:
            return
        if told:
            self._problems[source] = told
        else:
            del self._problems[source]
        # Always there, so that what is put into it is read out.
        self._notice.classes(**({"remove": "weft-none"} if self._problems else {"add": "weft-none"}))
        self._notice.clear()
        with self._notice:
            for each in dict.fromkeys(self._problems.values()):
                ui.label(each).classes("weft-notice q-mb-sm")

    def _header(self, viewer: Viewer) -> None:
        with ui.header(elevated=False).classes("weft-header items-center").props("role=banner"):
            with ui.element("a").classes("weft-skip").props(f'href="#{self._client.content.html_id}"'):
                ui.label("Skip to the content")
            ui.button(icon="menu", on_click=self._toggle_menu).props(
                'flat dense color=none aria-label="Menu"'
            )
            ui.label("Weft").classes("weft-brand")
            ui.label(viewer.mesh).classes("weft-muted ellipsis")
            ui.space()
            ui.label("live").classes("weft-state weft-ok weft-connection").props("role=status")
            ui.label(f"{viewer.name} · {viewer.scope}").classes("weft-muted weft-wide ellipsis")
            self._switch = ui.button(icon=_THEME_ICONS[self._theme], on_click=self._next_theme).props(
                f'flat dense color=none aria-label="Theme: {self._theme}"'
            )
            with ui.element("form").props('method="post" action="/dashboard/logout"'):
                ui.button(icon="logout").props('flat dense color=none type=submit aria-label="Sign out"')

    def _drawer_of(self, path: str, menu: Sequence[tuple[str, str, str]]) -> None:
        drawer = ui.left_drawer(value=False).classes("weft-drawer")
        drawer.props("show-if-above breakpoint=700 width=204")
        with drawer, ui.element("nav").props('aria-label="Pages"').classes("w-full"):
            for title, to, icon in menu:
                here = "aria-current=page" if path == to or (to != "/" and path.startswith(to)) else ""
                with ui.element("a").props(f'href="/dashboard{to}" {here}'):
                    ui.icon(icon).props("aria-hidden=true")
                    ui.label(title)
        self._drawer = drawer

    def _toggle_menu(self) -> None:
        self._drawer.toggle()

    def _hide_menu(self) -> None:
        self._drawer.hide()

    def _next_theme(self) -> None:
        names = [*_THEMES]
        self._theme = names[(names.index(self._theme) + 1) % len(names)]
        self._dark.value = _THEMES[self._theme]
        self._switch.props(f'icon={_THEME_ICONS[self._theme]} aria-label="Theme: {self._theme}"')
        self._client.run_javascript(f'weft.dark("{self._theme}")')


def _told(error: MeshError) -> str:
    match error:
        case Unavailable():
            return f"The control plane does not answer as it should: {error.detail}"
        case Denied():
            return f"Your token does not let you see all of this page: {error.detail}"
        case NotFound():
            return f"Not there: {error.detail}"
    return error.detail
