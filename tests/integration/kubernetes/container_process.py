"""Runs what a container runs: `python container_process.py CREDENTIALS PROGRAM ARGUMENT...`.

In a container the service account's token lies where every pod finds it; here it is in CREDENTIALS.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

from weft.identity.pod_access import PodAccess, pod_token


def main(credentials: Path, command: list[str]) -> None:
    """Run `weft ...` or `python -P -m ...` in this process."""
    PodAccess.of.__func__.__defaults__ = (credentials,)  # type: ignore[attr-defined]
    pod_token.__defaults__ = (credentials,)
    match command:
        case ["weft", *arguments]:
            from weft.cli.main import run  # noqa: PLC0415 -- half of the parts have no use for it

            sys.exit(run(arguments))
        case ["python", "-P", "-m", module, *arguments]:
            sys.argv[1:] = arguments
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case _:
            sys.exit(f"no container runs {command}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
