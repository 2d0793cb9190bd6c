"""The benchmarks run: real processes, short rounds, and nothing left behind."""

from __future__ import annotations

import json
import signal
import sys
from asyncio import create_subprocess_exec, subprocess, timeout
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.leftovers import Scope, scope

LIMIT = 220.0

# Other tests run beside, and what a benchmark measures takes as long as it takes.
pytestmark = pytest.mark.timeout(240)


async def _bench(space: Scope, output: Path, *arguments: str) -> subprocess.Process:
    return await create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks", "--quick", "--output", str(output), *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=space.environ,
        process_group=0,
    )


async def _says(bench: subprocess.Process, words: str) -> None:
    """Wait until its progress tells `words`."""
    assert bench.stderr is not None
    told: list[str] = []
    while not told or words not in told[-1]:
        line = await bench.stderr.readline()
        assert line, f"it ended before {words!r}:\n{''.join(told)}"
        told.append(line.decode())


def _kept(output: Path) -> Any:
    """What the only file says that was kept."""
    (file,) = output.iterdir()
    return json.loads(file.read_text(encoding="utf-8"))


async def test_a_benchmark_prints_its_figures_beside_their_baselines_and_keeps_them(tmp_path: Path) -> None:
    with scope() as space:
        bench = await _bench(space, tmp_path, "--only", "sdk,signing,events")
        async with timeout(LIMIT):
            told, progress = (each.decode() for each in await bench.communicate())
        assert bench.returncode == 0, progress
        assert "cores" in told
        assert "Calls by the SDK" in told
        results = _kept(tmp_path)["results"].values()
        figures = [each for result in results for each in result["figures"]]
        assert [each["name"] for each in figures if each["value"] > 0 and each["ratio"] > 0] == [
            "rate, 1 in flight",
            "p50, 1 in flight",
            "p50, 1 in flight, SDK alone",
            "rate, 32 in flight",
            "p50, 32 in flight",
            "p50, 32 in flight, SDK alone",
            "signed by the authority",
            "renewals over the API, 8 clients",
            "published",
            "delivered",
        ]
        await space.check_empty()


async def test_an_interrupted_benchmark_ends_everything_it_started(tmp_path: Path) -> None:
    with scope() as space:
        bench = await _bench(space, tmp_path, "--only", "sdk")
        async with timeout(LIMIT):
            # By then a mesh is up, and calls go through it.
            await _says(bench, "sdk: 1 calls in flight")
            space.note_ports()
            bench.send_signal(signal.SIGINT)
            _, progress = await bench.communicate()
        assert bench.returncode == 130, progress.decode()
        await space.check_empty()
