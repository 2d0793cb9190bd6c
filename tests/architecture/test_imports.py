"""What importing Weft does: nothing but define things, and only along the contracted directions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Run in a process of its own, since there each module is imported for the first time. What is started counts,
# whoever starts it; what libraries read of the environment is theirs to answer for.
_WATCH = """
import json, os, pkgutil, sys, threading

# Its libraries try a socket and ask the linker when they are imported. So it is the first to be asked for by
# a browser that loads it, and not what is tested here.
import nicegui

seen = []
PASSIVE = {"os", "posixpath", "collections.abc", "_collections_abc", "__main__"}

def note(what):
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == "weft" or name.startswith("weft."):
            seen.append(f"{name}: {what}")
            return
        if name not in PASSIVE:
            return
        frame = frame.f_back

class Watched(type(os.environ)):
    def __getitem__(self, key):
        note(f"reads {key}")
        return super().__getitem__(key)

os.environ.__class__ = Watched

STARTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system", "os.kill", "os.mkdir",
          "os.remove", "socket.bind", "socket.connect", "socket.getaddrinfo"}
started = []

def audit(event, arguments):
    if event in STARTS:
        started.append(event)

sys.addaudithook(audit)
threads = threading.active_count()
import weft
names = [each.name for each in pkgutil.walk_packages(weft.__path__, "weft.")]
for name in names:
    __import__(name)
print(json.dumps({"modules": len(names), "read": seen, "started": started,
                  "threads": threading.active_count() - threads}))
"""


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_importing_every_module_starts_nothing_and_reads_no_environment() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WATCH], capture_output=True, text=True, timeout=100, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("modules") > 100
    assert found == {"read": [], "started": [], "threads": 0}


# What takes long to load, and is for a few: commands, agents with A2A or MCP, gateways that ask an issuer.
_FOR_A_FEW = {
    "a2a",
    "aiormq",
    "cyclopts",
    "httpx",
    "mcp",
    "nicegui",
    "opentelemetry.sdk",
    "pygments",
    "redis",
    "rich",
}
_OF_SERVERS = {"fastapi", "grpc", "pydantic_settings", "yaml"}


@pytest.mark.parametrize(
    ("started", "spared"),
    [
        ("weft.controlplane.__main__", _FOR_A_FEW | {"aiohttp"}),
        ("weft.gateway.__main__", _FOR_A_FEW | {"grpc", "pydantic_settings", "yaml"}),
        (
            "weft.sidecar.__main__",
            _FOR_A_FEW | _OF_SERVERS | {"aiohttp", "opentelemetry", "starlette", "uvicorn"},
        ),
        ("weft.sdk.agent", _FOR_A_FEW | _OF_SERVERS | {"opentelemetry"}),
        ("weft.cli.main", _FOR_A_FEW - {"cyclopts"} | _OF_SERVERS | {"aiohttp", "nats", "pydantic"}),
    ],
)
def test_a_start_loads_nothing_that_only_a_few_need_and_reads_no_source(
    started: str, spared: set[str]
) -> None:
    # Whoever asks `inspect` for a source leaves its file in the cache.
    code = (
        f"import json, linecache, sys, {started}; "
        "print(json.dumps([list(sys.modules), [each for each in linecache.cache if 'weft' in each]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    loaded, read = json.loads(done.stdout)
    assert started in loaded
    assert spared & set(loaded) == set()
    assert read == []
