"""A mesh of `weft up` that is looked at from outside: by commands, and by Prometheus."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.weft_cli import EXAMPLES, TIMEOUT, Weft, weft_user

HERE = Path(__file__).parent


def _document(kind: str, name: str, **spec: Any) -> str:
    resource = {"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return json.dumps(resource) + "\n"


def _agent(name: str, program: Path, *arguments: str, replicas: int = 1, **spec: Any) -> str:
    return _document(
        "Agent",
        name,
        version="1",
        health={"interval": "1s"},
        drainTimeout="10s",
        run={"command": [sys.executable, str(program), *arguments], "replicas": replicas},
        **spec,
    )


def _workers(journal: Path) -> list[str]:
    """Two workers, checked often, and whose calls are to be written down; any call is traced."""
    telemetry = {"target": {"type": "worker"}, "tracing": {"samplingPercent": 100}, "accessLog": "all"}
    return [
        _agent("worker", HERE / "worker.py", str(journal), replicas=2),
        _document("Telemetry", "worker", **telemetry),
    ]


EVERYTHING = (
    _agent("clerk", HERE / "clerk.py"),
    _agent("clock", EXAMPLES / "tools" / "clock_server.py", protocol="mcp"),
    *(_document("Queue", each, maxDeliveries=1) for each in ("count", "fragile", "endless")),
    _document("Topic", "orders"),
    _document("Budget", "daily", scope="tenant", period="day", tokens=1_000_000),
)
"""A tool, tasks with one who does them, and a budget for models: what else a mesh tells of."""


@contextmanager
def observed_mesh(*more: str) -> Iterator[Weft]:
    """A user whose mesh runs two workers, and `more`."""
    with weft_user() as user:
        user.write("mesh.yaml", "---\n".join([*_workers(user.directory / "journal"), *more]))
        user.up()
        yield user
        user.ok("down")


def wait_until(condition: Callable[[], bool], otherwise: Callable[[], object] = lambda: "") -> None:
    """Wait until a condition, asked every now and then, holds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.2)
