"""Elements of HTML: what comes from data is their text or the value of an attribute, never markup."""

from __future__ import annotations

from nicegui.elements.mixins.text_element import TextElement

LISTS = """
.weft-list{margin:0;padding:0;list-style:none}
.weft-list>li{padding:5px 0;border-top:1px solid var(--weft-line);overflow-wrap:anywhere}
.weft-list>li:first-child{border-top:none}
.weft-line{display:flex;flex-wrap:wrap;gap:4px 18px;align-items:center;width:100%}
.weft-line>*{display:inline-flex;align-items:center;gap:4px;overflow-wrap:anywhere}
"""
"""Styles of plain lists, and of things beside each other on a line."""


def tag(
    name: str, css: str = "", text: str = "", *, style: dict[str, str] | None = None, **attributes: str | int
) -> TextElement:
    """An element `<name>` with classes; `aria_label` and the like are attributes, with hyphens.

    Which attributes there are says the code that calls it, never data: the names of some are read as
    JavaScript by NiceGUI.
    """
    element = TextElement(tag=name, text=text)
    if css:
        element.classes(css)
    if style:
        element.style.update(style)
    if attributes:
        element.props.update({key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()})
    return element
