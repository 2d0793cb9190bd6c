"""`python -m weft.gateway`: the gateway's process, started by its sidecar."""

from __future__ import annotations

import logging
import os
import sys

import uvloop

from weft.errors import MeshError
from weft.gateway.process import run_gateway

EXIT_FAILED = 1


def main() -> int:
    """Run until a signal stops it; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        uvloop.run(run_gateway(os.environ))
    except MeshError as error:
        print(f"weft gateway: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
