"""What holds for all tests."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# A test run started in the background of a script has SIGINT ignored, and every process that it starts
# inherits that; but Ctrl-C is one of the things to be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes, or making it up, is up to what else the machine does.
settings.register_profile(
    "weft", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("weft")

WHOLE_MESHES = "tests/e2e/"
"""Tests that run whole meshes. Most run one after another, in two processes, while others run beside."""

BY_COMMAND = re.compile(r"tests/e2e/test_(cli|demo|examples)")
"""Those of them whose meshes are started as a user does it; they are half of the work."""

_BROKERS = re.compile(r"tests/conformance/test_(broker_|tasks|events)")
"""Files whose tests share brokers, one of which takes seconds to start: one process runs them."""

_WAITING = re.compile(
    r"tests/e2e/.*(messaging|gateway|events|tasks|llm|dashboard|observing|prometheus|tracing|traffic|hosts)"
    rf"|{_BROKERS.pattern}|tests/integration/test_nats_several"
)
"""Files whose tests wait more than they compute: any process may run them, beside whatever computes."""


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]  # it ships without types
    """Gives whole files to the processes of a run, and most whole meshes to the same two."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if _BROKERS.match(file):
            return _BROKERS.pattern
        if not file.startswith(WHOLE_MESHES) or _WAITING.match(file):
            return file
        return BY_COMMAND.pattern if BY_COMMAND.match(file) else WHOLE_MESHES


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How tests are spread over processes, if there are several."""
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have whole meshes begin, which last longest; beside them, what waits."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    file = item.nodeid.partition("::")[0]
    if _WAITING.match(file):
        return 1
    return 0 if file.startswith(WHOLE_MESHES) else 2
