"""What a sidecar's exit code says.

A sidecar that ran a program ends with that program's exit code, or with 128+n if signal n ended it. All other
reasons to end are below; they follow sysexits.h and the shell.
"""

from __future__ import annotations

from enum import IntEnum

from weft.errors import Conflict, Denied, InvalidRequest, MeshError, Unauthenticated, Unavailable


class ExitCode(IntEnum):
    """Why a sidecar ended that did not return its program's exit code."""

    OK = 0
    """It was asked to stop, and there was no program to run."""
    FAILED = 1
    INVALID = 2
    """The settings make no sense."""
    UNAVAILABLE = 69
    """A port is in use, Envoy cannot be started, or NATS cannot be reached."""
    CONFLICT = 73
    """Another instance has the name."""
    NO_PERMISSION = 77
    """The control plane refuses to give it an identity, or to renew it: see the log for why."""
    CANNOT_EXECUTE = 126
    """The program exists but cannot be executed."""
    NOT_FOUND = 127
    """The program does not exist."""


class CannotRun(InvalidRequest):
    """The program cannot be started; `exit_code` is what a shell would say."""

    def __init__(self, detail: str, code: ExitCode) -> None:
        super().__init__(detail)
        self.exit_code = code


def exit_code(error: MeshError) -> ExitCode:
    """The exit code that tells of `error`."""
    if isinstance(error, CannotRun):
        return error.exit_code
    if isinstance(error, InvalidRequest):
        return ExitCode.INVALID
    if isinstance(error, Unauthenticated | Denied):
        return ExitCode.NO_PERMISSION
    if isinstance(error, Conflict):
        return ExitCode.CONFLICT
    return ExitCode.UNAVAILABLE if isinstance(error, Unavailable) else ExitCode.FAILED
