"""A mesh in memory and a crew, for every test here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.unit.orchestration.crew import Crew

from weft.testing import InMemoryMesh


@pytest.fixture
async def mesh() -> AsyncIterator[InMemoryMesh]:
    async with InMemoryMesh() as mesh:
        yield mesh


@pytest.fixture
def crew() -> Crew:
    return Crew()
