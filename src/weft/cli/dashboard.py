"""`weft dashboard`: the pages of the control plane, in a browser."""

from __future__ import annotations

import os
import webbrowser
from typing import Annotated

from cyclopts import Parameter

from weft.cli.api import API_VARIABLE, control_api, the_mesh
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import print_json
from weft.errors import Unavailable
from weft.local.control import document_in

_HERE = ControlPlane()


async def dashboard(
    *,
    no_open: Annotated[
        bool, Parameter(help="Print the address rather than open a browser.", negative="", show_default=False)
    ] = False,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Open the dashboard in a browser, signed in.

    The address has a code in it, in place of your token: good for 60 s, and once.
    """
    async with control_api(where) as api:
        made = document_in(await api.ask("POST", "/v1/dashboard/codes", {}))
        base = _base(where, api.url)
    url = f"{base}/dashboard/login?code={made.get('code', '')}"
    if output is Output.JSON:
        print_json({"url": url, "expires": made.get("expires")})
    elif no_open:
        print(url)
    elif webbrowser.open(url):
        print(f"opened {base}/dashboard/ in your browser")
    else:
        raise Unavailable(
            "there is no browser here: open what `weft dashboard --no-open` prints, within 60 s"
        )


def _base(where: ControlPlane, api_url: str) -> str:
    """Where the dashboard is: browsers do not know a mesh's roots, so for the one here without TLS."""
    if where.api is None and (where.mesh is not None or not os.environ.get(API_VARIABLE)):
        return the_mesh(where.mesh).dashboard_url.removesuffix("/dashboard/")
    return api_url
