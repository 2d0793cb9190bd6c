"""What holds for all tests."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# A test run started in the background of a script has SIGINT ignored, and every process that it starts
# inherits that; but Ctrl-C is one of the things to be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

WHOLE_MESHES = "tests/e2e/"
"""Tests that run whole meshes: one after another, in one process, while the others run beside in another."""


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]  # it ships without types
    """Gives whole files to the processes of a run, and all whole meshes to the same."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return WHOLE_MESHES if file.startswith(WHOLE_MESHES) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How tests are spread over processes, if there are several."""
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have whole meshes begin: they last longest."""
    items.sort(key=lambda each: not each.nodeid.startswith(WHOLE_MESHES))
