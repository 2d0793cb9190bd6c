"""What holds for all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A test run started in the background of a script has SIGINT ignored, and every process that it starts
# inherits that; but Ctrl-C is one of the things to be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

WHOLE_MESHES = "e2e"
"""The directory of the tests that run whole meshes: one after another, while the others run beside."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests of a file, and all of whole meshes, run in one process; these begin, as they last."""
    directories = {each: each.path.relative_to(Path(__file__).parent).parts for each in items}
    items.sort(key=lambda each: directories[each][0] != WHOLE_MESHES)
    for each in items:
        first, *rest = directories[each]
        group = WHOLE_MESHES if first == WHOLE_MESHES else "/".join((first, *rest))
        each.add_marker(pytest.mark.xdist_group(group))
