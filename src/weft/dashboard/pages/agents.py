"""Agents: all instances, and one in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from nicegui import ui

from weft.dashboard.page import Page, link_to, page
from weft.dashboard.pages.instances import (
    base_rows,
    counts,
    expiries,
    rejection,
    sidecars_by_key,
    with_sync,
)
from weft.dashboard.pages.mesh import INSTANCES
from weft.dashboard.parts import Facts, Figures, State, When, link
from weft.dashboard.table import Column, Table
from weft.dashboard.wording import NOTHING, count

SIDECARS_INTERVAL = 10.0
"""Seconds; the control plane reads them from its store each time."""

_COLUMNS = (
    Column("id", "Instance", link="to", filter=True, grow=2, least=130),
    Column("type", "Agent", filter=True, grow=2, wide=True),
    Column("status", "Status", tone="tone", filter=True, least=110),
    Column("reason", "Reason", wide=True, grow=2, least=80),
    Column("version", "Version", wide=True, least=80),
    Column("inFlight", "In flight", "count", least=80),
    Column("capabilities", "Offers", wide=True, filter=True, grow=2),
    Column("startedAt", "Started", "ago", wide=True, least=100),
    Column("sync", "Config", tone="syncTone", wide=True, grow=2),
    Column("expires", "Certificate", "ago", wide=True, least=110),
)


class _Instances:
    """The rows of a table of instances, from three sources."""

    def __init__(self, view: Page, only: str) -> None:
        self._only = only
        self._rows: Sequence[Mapping[str, Any]] | None = None
        self._sidecars: Mapping[str, Any] = {}
        self._expiries: Mapping[str, float] = {}
        self._figures = Figures(("Healthy", "Unhealthy", "Starting", "Draining", "Gone of late"))
        self._table = Table(
            view,
            _COLUMNS,
            key="key",
            label="Instances",
            height="calc(100vh - 250px)",
            empty=f"No instance of {only} is there."
            if only
            else "No agent is there: `weft apply` declares some.",
        )
        view.watch(INSTANCES, self._instances, every=0.5, shape=base_rows)
        view.watch("/v1/sidecars", self._synced, every=SIDECARS_INTERVAL, shape=sidecars_by_key)
        view.watch("/v1/identities", self._certified, every=30.0, shape=expiries)

    def _instances(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = [each for each in rows if each["type"] == self._only] if self._only else rows
        self._show()

    def _synced(self, sidecars: Mapping[str, Any]) -> None:
        self._sidecars = sidecars
        self._show()

    def _certified(self, ends: Mapping[str, float]) -> None:
        self._expiries = ends
        self._show()

    def _show(self) -> None:
        if self._rows is None:
            return
        self._table.show(with_sync(self._rows, self._sidecars, self._expiries))
        found = counts(self._rows)
        self._figures.show(
            {
                "Healthy": count(found["healthy"]),
                "Unhealthy": count(found["unhealthy"]),
                "Starting": count(found["starting"]),
                "Draining": count(found["draining"]),
                "Gone of late": count(found["gone"]),
            },
            {
                "Healthy": "ok" if found["healthy"] else "",
                "Unhealthy": "bad" if found["unhealthy"] else "",
                "Gone of late": "bad" if found["gone"] else "",
            },
        )


@page("/agents", title="Agents", icon="smart_toy", menu=20)
def agents(view: Page) -> None:
    """All instances; with `type` in the query those of one."""
    only = view.query.get("type", "")[:100]
    if only:
        view.title(f"Agents: {only}")
        with ui.row().classes("q-gutter-md"):
            link("All agents", link_to("agents"))
            link("Its traffic", link_to("traffic", destination=only))
            link("Its traces", link_to("traces", service=only))
    _Instances(view, only)


@page("/agents/{type_}/{id_}", title="Agent")
def agent(view: Page) -> None:
    """One instance."""
    agent_type, instance = view.parameters["type_"], view.parameters["id_"]
    view.title(instance)
    _Instance(view, agent_type, instance)


class _Instance:
    """One instance in detail."""

    def __init__(self, view: Page, agent_type: str, instance: str) -> None:
        self._key = f"{agent_type}.{instance}"
        path = f"/v1/agents/{quote(agent_type, safe='')}/{quote(instance, safe='')}"

        async def drain() -> str:
            await view.ask("POST", f"{path}/drain")
            view.refresh(path)
            return f"{instance} finishes what it has in flight and leaves"

        with ui.row().classes("items-center q-gutter-md"):
            self._state = State("not known yet")
            link(agent_type, link_to("agents", type=agent_type))
            link("Traffic", link_to("traffic", destination=agent_type))
            link("Traces", link_to("traces", service=agent_type))
            view.action(
                "Drain",
                drain,
                confirm=f"Have {instance} finish what it has in flight, and stop? "
                "A mesh of `weft up` starts another one in its place.",
                icon="logout",
            )
        self._reason = ui.label().classes("weft-muted")
        with ui.element("section").classes("weft-panel"):
            self._facts = Facts()
        with ui.element("dl").classes("weft-facts weft-panel"):
            _term("Started")
            with ui.element("dd"):
                self._started = When()
            _term("Certificate ends")
            with ui.element("dd"):
                self._expires = When()
            _term("Configuration")
            with ui.element("dd"):
                self._sync = State("not known yet")
                self._refused = ui.label().classes("weft-mono")
        view.watch(INSTANCES, self._show_state, every=0.5, shape=base_rows)
        view.watch(path, self._show, every=2.0)
        view.watch("/v1/identities", self._show_expiry, every=30.0, shape=expiries)

    def _show_state(self, rows: Sequence[Mapping[str, Any]]) -> None:
        row = next((each for each in rows if each["key"] == self._key), None)
        self._state.show(row["status"] if row else "not there", row["tone"] if row else "muted")
        self._reason.set_text(row["reason"] if row else "")

    def _show(self, detail: Mapping[str, Any]) -> None:
        labels = ", ".join(f"{name}={value}" for name, value in sorted(detail["labels"].items()))
        self._facts.show(
            {
                "Agent": detail["type"],
                "Version": detail["version"] or NOTHING,
                "Capabilities": ", ".join(detail["capabilities"]) or NOTHING,
                "In flight": count(detail["inFlight"]),
                "Endpoint": detail["endpoint"],
                "Locality": "/".join(filter(None, detail["locality"].values())) or NOTHING,
                "Weight": count(detail["weight"]),
                "Labels": labels or NOTHING,
                "Logs": f"weft logs {detail['type']}/{detail['id']} -f",
            }
        )
        self._started.show(detail["startedAt"])
        sync = detail["sync"]
        refused = rejection(sync)
        if sync is None:
            self._sync.show("its sidecar is not connected to the control plane", "bad")
        elif sync["inSync"]:
            self._sync.show("in sync: its Envoy has taken everything", "ok")
        else:
            self._sync.show(
                "its Envoy refused some of it" if refused else "being sent", "bad" if refused else "warn"
            )
        self._refused.set_text(refused)

    def _show_expiry(self, ends: Mapping[str, float]) -> None:
        if self._key in ends:
            self._expires.show(ends[self._key])


def _term(name: str) -> None:
    with ui.element("dt"):
        ui.label(name)
