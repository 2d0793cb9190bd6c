"""Colours, in one place. Text on them has at least the contrast that WCAG 2.2 AA asks for (4.5 to 1)."""

from __future__ import annotations

OK = "#2f9e62"
WARN = "#d18700"
BAD = "#e0483e"
MUTED = "#7d8896"
ACCENT = "#3f7fdb"
"""In charts: legible on light and dark."""

SERIES = (ACCENT, OK, WARN, "#9467d6", "#1fa3a8", "#d1549a", "#8a7a3c", "#6c7ea8")
"""Of a chart's lines, in this order."""

_LIGHT = {
    "fg": "#17212b",
    "muted": "#55616e",
    "line": "#d5dbe1",
    "surface": "#ffffff",
    "page": "#f4f6f8",
    "raised": "#eef2f6",
    "accent": "#1f5fbf",
    "ok": "#1c7a46",
    "warn": "#945800",
    "bad": "#c0271d",
}
_DARK = {
    "fg": "#e4e9ee",
    "muted": "#9ba8b5",
    "line": "#333d48",
    "surface": "#171d24",
    "page": "#0f1419",
    "raised": "#202832",
    "accent": "#79aefc",
    "ok": "#54c98a",
    "warn": "#eeb04c",
    "bad": "#ff7d72",
}


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--weft-{name}:{value};" for name, value in colours.items())


CSS = f"""
body{{{_variables(_LIGHT)}}}
body.body--dark{{{_variables(_DARK)}}}
body{{background:var(--weft-page)!important;color:var(--weft-fg);font:14px/1.45 system-ui,sans-serif}}
.nicegui-content{{padding:16px 20px 40px;gap:14px;align-items:stretch;width:100%}}
.weft-header{{background:var(--weft-surface)!important;color:var(--weft-fg)!important;
  border-bottom:1px solid var(--weft-line);gap:10px;height:46px;align-items:center!important;padding:0 12px!important;flex-wrap:nowrap}}
.weft-drawer{{background:var(--weft-surface)!important;border-right:1px solid var(--weft-line);padding:10px 8px!important}}
.weft-drawer a{{display:flex;align-items:center;gap:10px;padding:7px 10px;border-radius:6px;color:var(--weft-fg);
  text-decoration:none}}
.weft-drawer a:hover{{background:var(--weft-raised)}}
.weft-drawer a[aria-current=page]{{background:var(--weft-raised);color:var(--weft-accent);font-weight:600}}
.weft-drawer .q-icon{{font-size:18px}}
.weft-brand{{font-weight:700;font-size:16px;letter-spacing:.2px}}
.weft-h1{{font-size:20px;font-weight:650;margin:0;line-height:1.3;overflow-wrap:anywhere}}
.weft-h2{{font-size:15px;font-weight:650;margin:6px 0 0;line-height:1.3}}
.weft-panel{{background:var(--weft-surface);border:1px solid var(--weft-line);border-radius:8px;padding:12px 14px;
  width:100%;min-width:0}}
.weft-figures{{display:grid;grid-template-columns:repeat(auto-fit,minmax(120px,1fr));gap:10px;width:100%}}
.weft-figure{{background:var(--weft-surface);border:1px solid var(--weft-line);border-radius:8px;padding:8px 12px;min-width:0}}
.weft-figure .value{{font-size:20px;font-weight:650;font-variant-numeric:tabular-nums;line-height:1.25}}
.weft-figure .name,.weft-muted{{color:var(--weft-muted)}}
.weft-figure .name{{font-size:12px}}
.weft-ok{{color:var(--weft-ok)}}.weft-warn{{color:var(--weft-warn)}}.weft-bad{{color:var(--weft-bad)}}
.weft-mono{{font-family:ui-monospace,monospace;font-size:12.5px;white-space:pre-wrap;overflow-wrap:anywhere}}
.weft-notice{{border:1px solid var(--weft-warn);border-left-width:4px;border-radius:6px;padding:8px 12px;
  background:var(--weft-surface);color:var(--weft-fg);width:100%;overflow-wrap:anywhere}}
.weft-notices:empty{{position:absolute}}
.weft-empty{{color:var(--weft-muted);padding:22px;text-align:center;border:1px dashed var(--weft-line);border-radius:8px;
  width:100%}}
.weft-facts{{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0;width:100%}}
.weft-facts dt{{color:var(--weft-muted)}}.weft-facts dd{{margin:0;overflow-wrap:anywhere}}
@media(max-width:699px){{.weft-facts{{grid-template-columns:1fr}}.weft-facts dd{{margin-bottom:6px}}
  .nicegui-content{{padding:12px 12px 32px}}.weft-wide{{display:none!important}}}}
.weft-state{{display:inline-flex;align-items:center;gap:6px;white-space:nowrap}}
.weft-state::before{{content:"";width:9px;height:9px;border-radius:50%;background:currentColor;flex:none}}
.weft-skip{{position:absolute!important;left:-9999px;top:0}}
.weft-skip:focus{{left:8px;top:8px;z-index:9999;background:var(--weft-surface);color:var(--weft-accent);padding:8px 12px}}
a.weft-link{{color:var(--weft-accent);text-decoration:none}}a.weft-link:hover{{text-decoration:underline}}
.weft-grid{{width:100%;height:100%!important}}
.ag-root-wrapper{{border-radius:8px!important}}
.q-btn.text-primary{{color:var(--weft-accent)!important}}.q-btn.text-negative{{color:var(--weft-bad)!important}}
@media(prefers-reduced-motion:reduce){{*{{animation:none!important;transition:none!important}}}}
"""

FOCUS_CSS = """
@layer theme{*:focus-visible{outline:3px solid #f5a623!important;outline-offset:-2px!important}}
"""
"""In a layer before Quasar's: of important rules the earliest layer wins."""
