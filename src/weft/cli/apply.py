"""`weft apply`: declare resources."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.manifests import read_manifests
from weft.cli.options import ControlPlane, FileOption, Output, OutputOption
from weft.cli.show import print_json

_HERE = ControlPlane()


async def apply(
    *,
    file: FileOption = (),
    dry_run: Annotated[
        bool, Parameter(help="Check everything, change nothing.", negative="", show_default=False)
    ] = False,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Declare the resources of a manifest: all of them, or, if anything is wrong, none."""
    manifests = read_manifests(file, os.environ)
    async with control_api(where) as api:
        with manifests.located():
            results = await api.apply(manifests.text, manifests.name, dry_run=dry_run)
    if output is Output.JSON:
        print_json(results)
        return
    for each in results:
        print(f"{each['kind']}/{each['name']} {each['outcome']}{' (dry run)' if dry_run else ''}")
