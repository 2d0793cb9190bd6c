"""Elements of HTML: what comes from data is their text or the value of an attribute, never markup."""

from __future__ import annotations

from nicegui.elements.mixins.text_element import TextElement


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
