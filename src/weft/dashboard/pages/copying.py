"""A button that copies a text."""

from __future__ import annotations

from nicegui import ui
from nicegui.events import GenericEventArguments

# The text is an attribute of the button, so none of it is ever part of a script.
_COPY = """
async (event) => {
  const text = event.currentTarget.dataset.copy;
  try { await navigator.clipboard.writeText(text); emit(true); } catch { emit(false); }
}
"""


def copy_button(text: str, what: str) -> ui.button:
    """Copies `text`; `what` it is says its label: "the trace's id"."""
    button = ui.button(icon="content_copy").props("flat dense round size=sm color=none")
    button.props.update({"data-copy": text, "aria-label": f"Copy {what}", "title": f"Copy {what}"})
    return button.on("click", lambda event: _tell(event, what), js_handler=_COPY)


def _tell(event: GenericEventArguments, what: str) -> None:
    if event.args is True:
        ui.notify(f"Copied {what}", position="bottom-left")
    else:
        ui.notify("The browser does not let this page copy", type="warning", position="bottom-left")
