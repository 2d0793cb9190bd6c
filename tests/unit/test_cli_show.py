"""What commands show of what others say."""

from __future__ import annotations

import pytest

from weft.cli.show import print_table, printable


def test_what_others_say_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["WHO", "WHY"], [("eve", "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e done\nroot  fine")], none="")
    shown = capsys.readouterr().out
    assert r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202e done\nroot  fine" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_text_of_any_language_is_shown_as_it_is() -> None:
    assert printable("Zürich, 東京 [bold]✓[/bold]") == "Zürich, 東京 [bold]✓[/bold]"
