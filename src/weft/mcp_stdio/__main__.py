"""`python -m weft.mcp_stdio -- COMMAND ARGUMENT...`: an MCP server on pipes, served at $PORT."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence

from weft.errors import InvalidRequest, MeshError
from weft.mcp_stdio.wrapper import serve
from weft.sdk.port import port_from
from weft.tracing.logs import start_logging

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CANNOT_EXECUTE = 126


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serve until the server ends, or a signal comes; return the exit code."""
    start_logging(
        "weft mcp-stdio: %(levelname)s %(message)s",
        environ,
        level=logging.WARNING,
        agent=f"{environ.get('WEFT_TYPE', '')}.{environ.get('WEFT_INSTANCE', '')}".strip("."),
    )
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        print("usage: python -m weft.mcp_stdio -- COMMAND ARGUMENT...", file=sys.stderr)
        return EXIT_USAGE
    try:
        return asyncio.run(serve(command, port_from(environ), environ))
    except OSError as error:
        print(f"weft mcp-stdio: {command[0]!r} cannot be started: {error.strerror}", file=sys.stderr)
        return EXIT_CANNOT_EXECUTE
    except MeshError as error:
        print(f"weft mcp-stdio: {error.detail}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, InvalidRequest) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
