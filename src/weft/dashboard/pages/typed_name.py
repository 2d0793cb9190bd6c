"""A dialog for what cannot be undone: it goes on once the name of the thing has been typed."""

from __future__ import annotations

from collections.abc import Mapping

from nicegui import ui


async def ask_for_name(question: str, name: str, choices: Mapping[str, str]) -> str | None:
    """The key of the one of `choices` that was taken, after `name` was typed; None if it was let be."""
    keys, texts = [*choices], [*choices.values()]
    with ui.dialog(value=True) as dialog, ui.card().classes("weft-panel"):
        dialog.props('aria-label="Confirmation"')
        ui.label(question).classes("weft-confirm")
        taken = ui.radio(texts, value=texts[0]).props("dense")
        typed = ui.input(f"Type {name} to go on").props("outlined dense autofocus").classes("w-full")
        with ui.row().classes("justify-end w-full"):
            ui.button("Cancel", on_click=lambda: dialog.submit(None)).props("flat no-caps")
            go = ui.button("Throw away", on_click=lambda: dialog.submit(taken.value)).props(
                "unelevated no-caps color=negative"
            )
        go.set_enabled(False)
        typed.on_value_change(lambda change: go.set_enabled(change.value == name))
    answer = await dialog
    right = typed.value == name
    dialog.delete()
    return keys[texts.index(answer)] if right and answer in texts else None
