"""Meshes that tests share, since each costs seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.crew import MANIFEST, Crew, running_crew
from tests.e2e.observed import observed_mesh
from tests.e2e.routes import ROUTES
from tests.e2e.weft_cli import Weft


@pytest.fixture(scope="session")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Three workers and a shadow, with a policy for every capability and a rule for every path."""
    with running_crew(tmp_path_factory.mktemp("crew"), f"{MANIFEST}---{ROUTES}") as crew:
        yield crew


@pytest.fixture(scope="session")
def observed() -> Iterator[Weft]:
    """A user whose mesh runs two workers, every call of which is traced and written down."""
    with observed_mesh() as weft:
        yield weft
