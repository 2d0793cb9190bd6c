"""Files that browsers get: scripts and styles."""

from __future__ import annotations

from pathlib import Path


def text_of(name: str) -> str:
    """The text of one of the files here."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
