"""`python -m benchmarks`: every figure beside its baseline from the same run, and whether budgets are met."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    a2a_calls,
    convergence,
    dashboard,
    event_rate,
    fairness_case,
    latency,
    llm_contended,
    llm_limits,
    llm_rate,
    memory,
    orchestration,
    policy_cost,
    push,
    queue_latency,
    queue_memory,
    sdk_calls,
    seed_case,
    signing,
    task_rate,
    telemetry,
    throughput,
    tool_calls,
    trace_intake,
)
from benchmarks.report import Result, show
from rich.console import Console

from weft.errors import MeshError

RESULTS = Path("bench-results")
"""Where the figures are kept as JSON; git ignores it."""

BENCHMARKS: dict[str, Callable[..., Awaitable[Result]]] = {
    "latency": latency.measure,
    "throughput": throughput.measure,
    "memory": memory.measure,
    "convergence": convergence.measure,
    "sdk": sdk_calls.measure,
    "a2a": a2a_calls.measure,
    "tools": tool_calls.measure,
    "push": push.measure,
    "signing": signing.measure,
    "policies": policy_cost.measure,
    "telemetry": telemetry.measure,
    "traces": trace_intake.measure,
    "dashboard": dashboard.measure,
    "tasks": task_rate.measure,
    "events": event_rate.measure,
    "queue-latency": queue_latency.measure,
    "queue-memory": queue_memory.measure,
    "fairness": fairness_case.measure,
    "seed": seed_case.measure,
    "llm": llm_rate.measure,
    "llm-contended": llm_contended.measure,
    "llm-limits": llm_limits.measure,
    "orchestration": orchestration.measure,
}

_MIN_WIDTH = 120


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=_names,
        default=list(BENCHMARKS),
        metavar="NAME,...",
        help=f"some of {', '.join(BENCHMARKS)} (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="short rounds: a rough idea in a minute or two")
    parser.add_argument("--output", type=Path, default=RESULTS, help="directory for the JSON")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = [each.strip() for each in text.split(",")]
    unknown = [each for each in names if each not in BENCHMARKS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no benchmark is called {', '.join(unknown)}: there are {', '.join(BENCHMARKS)}"
        )
    return names


async def _measure(names: Sequence[str], *, quick: bool) -> tuple[dict[str, Result], list[str]]:
    """The results by name, and what failed: one benchmark that fails must not cost the others' figures."""
    results: dict[str, Result] = {}
    failed: list[str] = []
    for name in names:
        try:
            results[name] = await BENCHMARKS[name](quick=quick)
        except (RuntimeError, MeshError, TimeoutError) as error:
            notes = "\n".join(getattr(error, "__notes__", ()))
            failed.append(
                f"{name} could not be measured: {str(error) or 'it took too long'}\n{notes}".rstrip()
            )
    return results, failed


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _keep(directory: Path, machine: dict[str, Any], results: dict[str, Result]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / time.strftime("bench-%Y%m%d-%H%M%S.json")
    content = {"machine": machine, "results": {name: each.json() for name, each in results.items()}}
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for each in results.values():
        for name, text in each.files.items():
            (directory / name).write_text(text, encoding="utf-8")
    return file


def main(arguments: Sequence[str]) -> int:
    """Measure, print, keep. Returns 0, whether budgets are met or not; 1 if something was not measured."""
    options = _parse(arguments)
    machine = _machine()
    try:
        results, failed = asyncio.run(_measure(options.only, quick=options.quick))
    except KeyboardInterrupt:
        print("interrupted; everything that was started has ended", file=sys.stderr)
        return 130
    console = Console(width=max(Console().width, _MIN_WIDTH))
    console.print(
        f"{machine['cores']} cores, {machine['system']} {machine['architecture']}, "
        f"Python {machine['python']}; load average at the start {machine['load']:.1f}\n",
        highlight=False,
    )
    show(results.values(), console)
    console.print(f"kept in {_keep(options.output, machine, results)}", highlight=False)
    for each in failed:
        print(each, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
