"""`weft status`: the mesh on this machine and its processes."""

from __future__ import annotations

from weft.cli.api import mesh_api, the_mesh
from weft.cli.options import MeshOption, Output, OutputOption
from weft.cli.show import age, print_json, print_table
from weft.model.local_state import MeshState


async def status(*, mesh: MeshOption = None, output: OutputOption = Output.TABLE) -> None:
    """Show the mesh on this machine and its processes. Exit code 3 if none runs."""
    state = the_mesh(mesh)
    async with mesh_api(state) as api:
        ready = await api.ready()
    if output is Output.JSON:
        urls = {
            "api": state.api_url,
            "proxy": state.proxy_url,
            "dashboard": state.dashboard_url,
            "nats": state.nats_url,
            "xds": state.xds_address,
        }
        print_json({**state.model_dump(by_alias=True), "urls": urls, "ready": ready})
        return
    _print(state, ready=ready)


def _print(state: MeshState, *, ready: bool) -> None:
    print(f"mesh {state.name}, pid {state.pid}, started {age(state.started_at)} ago")
    print(f"  control plane  {state.api_url}{'' if ready else '  (does not answer)'}")
    print(f"  door (proxy)   {state.proxy_url}")
    print(f"  dashboard      {state.dashboard_url}")
    print(f"  NATS           {state.nats_url}")
    print(f"  xDS            {state.xds_address}")
    if state.models:
        print(f"  models         {state.models}")
    for each in state.gateways:
        print(f"  {f'gateway {each.name}':14} {each.url}")
    print()
    rows = (
        (each.name, each.phase, str(each.pid or ""), str(each.restarts), each.detail)
        for each in state.children
    )
    print_table(("PROCESS", "STATUS", "PID", "RESTARTS", "REASON"), rows, none="no processes")
