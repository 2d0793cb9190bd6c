"""`weft check` tells how many sidecars this user may have, before an Envoy aborts for want of watchers."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.cli import findings
from weft.cli.findings import Level, watched_files


@pytest.mark.parametrize(("limit", "level", "sidecars"), [("128\n", "warn", 42), ("1024\n", "ok", 341)])
def test_a_limit_of_watched_files_is_told_in_sidecars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, level: str, sidecars: int
) -> None:
    (tmp_path / "limit").write_text(limit)
    monkeypatch.setattr(findings, "WATCHERS", tmp_path / "limit")
    (found,) = watched_files({})
    assert (found.level, found.found) == (Level(level), f"enough for about {sidecars} sidecars")
    assert ("sysctl" in found.advice) is (level == "warn")


def test_where_there_is_no_such_limit_nothing_is_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "WATCHERS", tmp_path / "none")
    assert list(watched_files({})) == []
