"""`weft completion`: commands and options completed by the shell."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.completion.detect import ShellDetectionError

from weft.cli.main import make_app
from weft.errors import InvalidRequest, MeshError

Shell = Annotated[
    Literal["bash", "zsh", "fish"] | None, Parameter(help="Which shell (default: the one this runs in).")
]

app = App(name="completion", help="Complete commands and options in bash, zsh and fish.")


@app.command
def show(*, shell: Shell = None) -> None:
    """Print the completion script."""
    try:
        print(make_app().generate_completion(shell=shell))
    except ShellDetectionError as error:
        raise InvalidRequest(f"{error}: name it with --shell bash, zsh or fish") from error


@app.command
def install(*, shell: Shell = None) -> None:
    """Install the completion script where the shell finds it, in your home directory."""
    try:
        path = make_app().install_completion(shell=shell)
    except ShellDetectionError as error:
        raise InvalidRequest(f"{error}: name it with --shell bash, zsh or fish") from error
    except OSError as error:
        raise MeshError(f"the completion script cannot be installed: {error}") from error
    print(f"installed in {path}; it works in new shells")
