"""A mesh of `weft up` that is looked at from outside: by commands, and by Prometheus."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.weft_cli import TIMEOUT, Weft, weft_user

WORKER = Path(__file__).parent / "worker.py"


def manifest(journal: Path) -> str:
    """Two workers, checked often, and whose calls are to be written down; any call is traced."""
    agent = {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "worker"},
        "spec": {
            "version": "1",
            "health": {"interval": "1s"},
            "drainTimeout": "10s",
            "run": {"command": [sys.executable, str(WORKER), str(journal)], "replicas": 2},
        },
    }
    telemetry = {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Telemetry",
        "metadata": {"name": "worker"},
        "spec": {"target": {"type": "worker"}, "tracing": {"samplingPercent": 100}, "accessLog": "all"},
    }
    return f"{json.dumps(agent)}\n---\n{json.dumps(telemetry)}\n"


@contextmanager
def observed_mesh() -> Iterator[Weft]:
    """A user whose mesh runs two workers."""
    with weft_user() as user:
        user.write("mesh.yaml", manifest(user.directory / "journal"))
        user.ok("up", "-d", "--port-base", "0")
        yield user
        user.ok("down")


def wait_until(condition: Callable[[], bool], otherwise: Callable[[], object] = lambda: "") -> None:
    """Wait until a condition, asked every now and then, holds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.2)
