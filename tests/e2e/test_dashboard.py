"""The dashboard, looked at by Chromium: what its pages show is what was sent."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.e2e.dashboard.stage import Stage, dashboard_stage

# The first one starts the mesh and the browser, too.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

_SHARED = {"browser", "cast", "screenshots", "stage"}
PAGES = sorted(
    each.stem for each in (Path(__file__).parent / "dashboard").glob("*.py") if each.stem not in _SHARED
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with dashboard_stage() as stage:
        yield stage


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_shows_what_was_sent(stage: Stage, page: str) -> None:
    await importlib.import_module(f"tests.e2e.dashboard.{page}").check(stage)
