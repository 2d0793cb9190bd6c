"""The written reports."""

from __future__ import annotations

import os
from pathlib import Path

from weft.demo.markdown import render_markdown
from weft.demo.report import Report
from weft.errors import InvalidRequest, MeshError

MARKDOWN_FILE = "review.md"
JSON_FILE = "review.json"


def prepare_output(directory: Path) -> None:
    """Make `directory`, if need be. Raises InvalidRequest if reports cannot be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"no report can be written to {directory}: {error.strerror or error}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InvalidRequest(f"no report can be written to {directory}: permission denied")


def write_reports(report: Report, directory: Path) -> list[Path]:
    """Write the report as Markdown and as JSON; return where. Raises MeshError if that fails."""
    texts = {
        directory / MARKDOWN_FILE: render_markdown(report),
        directory / JSON_FILE: report.model_dump_json(by_alias=True, indent=2) + "\n",
    }
    try:
        for path, text in texts.items():
            _replace(path, text)
    except OSError as error:
        raise MeshError(
            f"the report could not be written to {directory}: {error.strerror or error}"
        ) from error
    return list(texts)


def _replace(path: Path, text: str) -> None:
    """Write `text` to `path`; who reads meanwhile sees either the old text or the new."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
