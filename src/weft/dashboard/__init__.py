"""The pages of the control plane: what the API tells, to look at.

`Dashboard` is an ASGI application under PATH. It loads NiceGUI with the first request that needs it, so that
a control plane at which nobody looks is as small as one without. It knows the API only, asked in this process
with the viewer's own token: what somebody may see and do is decided there and nowhere else.

| module | what it is |
|---|---|
| `application` | the ASGI application: who gets in, and with which headers everything is sent |
| `login`, `sessions` | forms, cookies; nothing of NiceGUI |
| `api`, `feeds` | asking the API; one poll for all browsers that watch the same |
| `surface` | NiceGUI, set up and guarded |
| `page`, `frame`, `table`, `chart`, `parts` | what pages are made of |
| `assets` | script and style of the browser |
| `plain`, `theme`, `wording` | the guard of data, colours, how times and rates are written |
| `pages` | the pages, a module each |

**A page** is a function in a module of `pages`, which are all loaded:

    @page("/traffic", title="Traffic", icon="swap_horiz", menu=30)
    def traffic(view: Page) -> None:
        table = Table(view, [Column("caller", "From"), Column("rate", "Calls/s", number=True)], key="id")
        view.watch("/v1/traffic?window=30", lambda answer: table.show(rows(answer)), every=2.0)

It runs once for each browser tab that opens it. `view.parameters` has what stands in braces in the path
(`/agents/{type_}/{id_}`), `view.query` what stands behind the `?`; links go to
`link_to("agents", type_, id_)`.

**Data** comes by `view.watch(path, show, every=seconds)`: `show` is called with the API's JSON at first and
whenever it may be new, while the tab is visible; what goes wrong is shown by the frame. What costs time to
prepare is done once for all tabs by `shape=`, a pure function of the module. Once: `await view.ask(...)`,
which raises MeshError. A path with `watch=true` is followed rather than asked for (`followed`).

**Live** are `Table.show(rows)` (sends only what changed), `Chart.show(option)` (merged into what is there)
and NiceGUI's own `label.set_text`, which send nothing where nothing changed. Clear and build again only what
is small and changes seldom.

**Injection.** Names, messages, attributes and results come from agents: strangers. Text is safe in `ui.label`
and in `Table` and `Chart`, whose data goes through `plain.plain`. Never: `ui.html`, `ui.markdown`,
`ui.run_javascript` with anything but `json.dumps` in it, `.props(f"...")` and `.style(f"...")` with data,
data as keys of dicts given to NiceGUI, `ui.table`, `ui.aggrid`, `ui.echart` themselves.

**What changes something** is a button by `view.action(...)`: shown to those whose token may, with a
confirmation.

**Colours** are CSS variables (`theme`): `--weft-fg`, `--weft-muted`, `--weft-line`, `--weft-surface`,
`--weft-accent`, `--weft-ok`, `--weft-warn`, `--weft-bad`; classes of the same names colour text (`weft-ok`).
In charts `theme.OK` and the like, which are legible on light and dark; axes and text follow the theme by
themselves.

**Tests**: `tests/e2e/dashboard`, see there.
"""

from __future__ import annotations

from weft.dashboard.application import PATH, Dashboard

__all__ = ["PATH", "Dashboard"]
