"""`python -m weft.gateway`: the gateway's process, started by its sidecar."""

from __future__ import annotations

import os
import sys

import uvloop

from weft.errors import MeshError
from weft.gateway.process import run_gateway
from weft.tracing.logs import start_logging

EXIT_FAILED = 1


def main() -> int:
    """Run until a signal stops it; return the exit code."""
    name = f"{os.environ.get('WEFT_TYPE', 'gateway')}.{os.environ.get('WEFT_INSTANCE', '')}"
    start_logging("%(asctime)s %(levelname)s %(name)s: %(message)s", os.environ, agent=name)
    try:
        uvloop.run(run_gateway(os.environ))
    except MeshError as error:
        print(f"weft gateway: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
