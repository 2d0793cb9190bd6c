"""`python -m weft.sidecar`: one sidecar, at the smallest cost in memory and start-up time."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from weft.errors import InvalidRequest
from weft.sidecar.arguments import parse_arguments
from weft.sidecar.exit_codes import ExitCode
from weft.sidecar.supervisor import run_sidecar
from weft.tracing.logs import start_logging


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the sidecar that the command line asks for; return its exit code."""
    try:
        settings = parse_arguments(arguments, environ)
    except InvalidRequest as error:
        print(f"weft sidecar: {error.detail}", file=sys.stderr)
        return ExitCode.INVALID
    name = f"{settings.type}.{settings.id}" if settings.type else settings.id
    text = f"weft {name}: %(levelname)s %(message)s"
    start_logging(text, environ, level=settings.log_level.upper(), agent=name)
    # asyncio's streams warn at the end of every TLS connection of a client (python/cpython#94274).
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        return asyncio.run(run_sidecar(settings))
    except KeyboardInterrupt:  # before the sidecar took over the signal
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
