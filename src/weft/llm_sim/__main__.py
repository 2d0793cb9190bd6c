"""`python -m weft.llm_sim`: a simulated provider of models."""

from __future__ import annotations

import os
import sys

import uvloop

from weft.errors import InvalidRequest, MeshError
from weft.llm_sim.arguments import parse_arguments
from weft.llm_sim.server import run

EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: list[str]) -> int:
    """Run until a signal stops it; return the exit code."""
    try:
        uvloop.run(run(parse_arguments(arguments, os.environ)))
    except MeshError as error:
        print(f"weft llm-sim: {error.detail}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, InvalidRequest) else EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
