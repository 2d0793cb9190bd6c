"""What surrounds every page: header, menu, problems, and the script in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nicegui import ui

from weft.dashboard.theme import CSS, FOCUS_CSS
from weft.dashboard.viewer import Viewer
from weft.errors import Denied, MeshError, NotFound, Unavailable

THEME_COOKIE = "weft-theme"

SCRIPT = """
(() => {
  const text = (n, d) => n.toLocaleString("en-US", {minimumFractionDigits: d, maximumFractionDigits: d});
  const span = s => s >= 172800 ? Math.round(s / 86400) + " d" : s >= 7200 ? Math.round(s / 3600) + " h"
    : s >= 120 ? Math.round(s / 60) + " min" : Math.round(s) + " s";
  const absent = v => v === null || v === undefined || v === "";
  const weft = window.weft = {
    rate: v => absent(v) ? "–" : v === 0 ? "0" : text(v, v >= 100 ? 0 : v >= 10 ? 1 : 2),
    ms: v => absent(v) ? "–" : v >= 100 ? text(v, 0) + " s" : v >= 1 ? text(v, 1) + " s"
      : v >= 0.01 ? text(v * 1000, 0) + " ms" : text(v * 1000, 1) + " ms",
    span: v => absent(v) ? "–" : span(v),
    percent: v => absent(v) ? "–" : v >= 0.9995 && v < 1 ? "99.9 %" : text(v * 100, v >= 0.9995 ? 0 : 1) + " %",
    count: v => absent(v) ? "–" : text(v, 0),
    plain: v => absent(v) ? "–" : String(v),
    money: v => absent(v) ? "–" : "$" + text(v, v >= 100 ? 0 : v >= 1 ? 2 : 4),
    ago: v => {
      if (absent(v)) return "–";
      const d = v - Date.now() / 1000;
      return Math.abs(d) < 2 ? "just now" : d > 0 ? "in " + span(d) : span(-d) + " ago";
    },
    at: v => absent(v) ? "" : new Date(v * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC",
    link: field => p => {
      const to = p.data && p.data[field];
      if (typeof to !== "string" || !to.startsWith("/dashboard/")) return document.createTextNode(weft.plain(p.value));
      const a = document.createElement("a");
      a.className = "weft-link"; a.textContent = weft.plain(p.value); a.href = to; a.tabIndex = -1;
      return a;
    },
    state: field => p => {
      const s = document.createElement("span"), tone = p.data && p.data[field];
      s.className = "weft-state" + (["ok", "warn", "bad", "muted"].includes(tone) ? " weft-" + tone : "");
      s.textContent = weft.plain(p.value);
      return s;
    },
    columns: api => {
      const wide = api.getColumns().filter(c => String(c.getColDef().headerClass || "").includes("weft-wide-column"));
      if (wide.length) api.setColumnsVisible(wide, innerWidth >= 700);
    },
    ready: api => { weft.grids.add(api); weft.columns(api); },
    enter: e => {
      if (!e.event || e.event.key !== "Enter") return;
      const a = e.event.target.querySelector("a");
      (a || e.event.target).click();
    },
    grids: new Set(),
    theme: () => {
      const c = getComputedStyle(document.body), v = n => c.getPropertyValue("--weft-" + n).trim();
      document.querySelectorAll(".weft-chart").forEach(el => {
        const chart = getElement(Number(el.id.slice(1)))?.chart;
        if (!chart) return;
        const had = chart.getOption(), axis = () => ({axisLabel: {color: v("muted")}, nameTextStyle: {color: v("muted")},
          axisLine: {lineStyle: {color: v("line")}}, splitLine: {lineStyle: {color: v("line")}}});
        const patch = {textStyle: {color: v("fg")}};
        if (had.xAxis) patch.xAxis = had.xAxis.map(axis);
        if (had.yAxis) patch.yAxis = had.yAxis.map(axis);
        if (had.legend) patch.legend = had.legend.map(() => ({textStyle: {color: v("fg")}}));
        if (had.title) patch.title = had.title.map(() => ({textStyle: {color: v("fg")}}));
        if (had.tooltip) patch.tooltip = had.tooltip.map(() => ({backgroundColor: v("surface"),
          borderColor: v("line"), textStyle: {color: v("fg")}}));
        chart.setOption(patch);
      });
    },
    dark: value => {
      document.cookie = "weft-theme=" + value + "; Path=/dashboard; Max-Age=31536000; SameSite=Strict";
    },
  };
  addEventListener("resize", () => weft.grids.forEach(api => api.isDestroyed() ? weft.grids.delete(api) : weft.columns(api)));
  addEventListener("keydown", e => { if (e.key === "Escape" && innerWidth < 700) emitEvent("weft-escape"); });
  document.addEventListener("visibilitychange", () => emitEvent("weft-visible", !document.hidden));
  setInterval(() => {
    weft.grids.forEach(api => {
      if (api.isDestroyed()) { weft.grids.delete(api); return; }
      const times = api.getColumns().filter(c => String(c.getColDef().headerClass || "").includes("weft-time-column"));
      if (times.length) api.refreshCells({columns: times, force: true});
    });
    document.querySelectorAll("time[data-at]").forEach(el => { el.textContent = weft.ago(Number(el.dataset.at)); });
  }, 5000);
  addEventListener("DOMContentLoaded", () => {
    new MutationObserver(weft.theme).observe(document.body, {attributes: true, attributeFilter: ["class"]});
    const state = () => {
      const popup = document.getElementById("popup"), el = document.querySelector(".weft-connection");
      if (!popup || !el) return;
      const lost = popup.ariaHidden === "false";
      el.classList.toggle("weft-bad", lost); el.classList.toggle("weft-ok", !lost);
      el.textContent = lost ? "reconnecting" : "live";
    };
    const popup = document.getElementById("popup");
    if (popup) new MutationObserver(state).observe(popup, {attributes: true});
  });
})();
"""

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
        ui.add_head_html(f"<style>{CSS}{FOCUS_CSS}</style><script>{SCRIPT}</script>")
        ui.colors(primary="#1f5fbf", positive="#1c7a46", negative="#c0271d", warning="#945800")
        self._dark = ui.dark_mode(_THEMES[self._theme])
        self._header(viewer)
        self._drawer_of(path, menu)
        ui.on("weft-escape", lambda: self._drawer.hide())
        self._client.content.props("tabindex=-1")
        self._heading = ui.label().classes("weft-h1").props("role=heading aria-level=1")
        self._notice = ui.element("div").classes("weft-notices w-full").props("role=status aria-live=polite")
        self.name(title)

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
        self._notice.clear()
        with self._notice:
            for each in dict.fromkeys(self._problems.values()):
                ui.label(each).classes("weft-notice q-mb-sm")

    def _header(self, viewer: Viewer) -> None:
        with ui.header(elevated=False).classes("weft-header items-center").props("role=banner"):
            with ui.element("a").classes("weft-skip").props(f'href="#{self._client.content.html_id}"'):
                ui.label("Skip to the content")
            ui.button(icon="menu", on_click=lambda: self._drawer.toggle()).props(
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
        with ui.left_drawer(value=None).classes("weft-drawer").props("breakpoint=700 width=190") as drawer:
            with ui.element("nav").props('aria-label="Pages"').classes("w-full"):
                for title, to, icon in menu:
                    here = "aria-current=page" if path == to or (to != "/" and path.startswith(to)) else ""
                    with ui.element("a").props(f'href="/dashboard{to}" {here}'):
                        ui.icon(icon).props("aria-hidden=true")
                        ui.label(title)
        self._drawer = drawer

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
