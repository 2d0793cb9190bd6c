"""`weft demo`: a crew of agents reviews source code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from weft.cli.exit_codes import ExitCode
from weft.cli.manifests import read_manifests
from weft.demo.crew import ROLES
from weft.demo.display import display_on
from weft.demo.findings import Severity
from weft.demo.output import prepare_output, write_reports
from weft.demo.report import merge
from weft.demo.session import hold_session
from weft.demo.summary import Writer, writer_from
from weft.demo.terminal import print_report
from weft.demo.tool import check_installed
from weft.demo.tree import SourceTree

DEFAULT_OUTPUT = Path("weft-review")
WIDTH_OF_FILES = 120
"""Characters in a line of the report where it does not go to a terminal."""


def demo(
    path: Annotated[Path, Parameter(help="Directory with the Python files to review.")],
    /,
    *,
    output: Annotated[
        Path, Parameter(help="Directory for the reports, review.md and review.json.")
    ] = DEFAULT_OUTPUT,
    kill: Annotated[
        bool, Parameter(help="Kill an agent half-way; the report is complete all the same.")
    ] = True,
    min_severity: Annotated[Severity, Parameter(help="Leave out findings that matter less.")] = Severity.LOW,
    summary: Annotated[
        bool, Parameter(help="Have a model write a summary, if there is one that is not simulated.")
    ] = True,
    models: Annotated[
        Path | None,
        Parameter(help="Manifest with a ModelPool, whose model writes the summary.", show_default=False),
    ] = None,
    model: Annotated[
        str, Parameter(help="Name of the model that writes the summary.", show_default=False)
    ] = "",
) -> ExitCode:
    """Review source code with a crew of agents, in a mesh of its own.

    Four kinds of agents, two of each: lint (ruff), security (bandit), complexity (radon) and dead code
    (vulture, which looks at the whole tree). The exit code is 0 if every kind has answered about every file,
    whatever it found, and else 1.

    With HOLYSHEEP_API_KEY, OPENAI_API_KEY or a ModelPool in the manifest of --models, a model writes a
    summary. It is told the findings, which name files and may quote from them, but not the code.
    """
    check_installed({role.tool for role in ROLES.values()})
    tree = SourceTree(path)
    writer = _writer(models, model) if summary else None
    prepare_output(output)
    with display_on(Console(stderr=True)) as display:
        outcome = hold_session(tree, kill=kill, display=display, writer=writer)
    report = merge(outcome, min_severity)
    written = write_reports(report, output)
    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
    print_report(report, console)
    for each in written:
        console.print(Text(f"written: {each}"), soft_wrap=True)
    return ExitCode.OK if report.complete else ExitCode.FAILED


def _writer(models: Path | None, model: str) -> Writer | None:
    if models is None:
        return writer_from(os.environ, model=model)
    read = read_manifests([str(models)], os.environ)
    with read.located():
        return writer_from(
            os.environ, model=model, manifest=read.text, file=read.name, variables=read.variables
        )
