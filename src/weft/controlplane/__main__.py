"""`python -m weft.controlplane`: one control plane replica."""

from __future__ import annotations

import os
import sys

import uvloop
from pydantic import ValidationError
from pydantic_settings import CliApp

from weft.aio.ports import PortUnavailable
from weft.controlplane.app import run_control_plane
from weft.controlplane.settings import ControlPlaneSettings
from weft.errors import InvalidRequest, MeshError, Unavailable
from weft.tracing.logs import start_logging

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3


def main(arguments: list[str]) -> int:
    """Run until a signal stops it; return the exit code."""
    try:
        settings = CliApp.run(ControlPlaneSettings, cli_args=arguments)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            field = "-".join(str(part) for part in each["loc"]).replace("_", "-")
            print(f"weft control: --{field}: {each['msg']}", file=sys.stderr)
        return EXIT_USAGE
    start_logging(
        "%(asctime)s %(levelname)s %(name)s: %(message)s",
        os.environ,
        level=settings.log_level.upper(),
        agent=f"control.{settings.replica}",
    )
    try:
        uvloop.run(run_control_plane(settings))
    except (MeshError, PortUnavailable) as error:
        print(f"weft control: {error}", file=sys.stderr)
        return _exit_code(error)
    return 0


def _exit_code(error: MeshError | PortUnavailable) -> int:
    if isinstance(error, InvalidRequest):
        return EXIT_USAGE
    return EXIT_UNREACHABLE if isinstance(error, Unavailable) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
