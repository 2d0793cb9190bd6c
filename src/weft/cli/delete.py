"""`weft delete`: remove resources."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.manifests import Manifests, read_manifests
from weft.cli.options import ControlPlane, FileOption, Output, OutputOption
from weft.cli.show import print_json
from weft.errors import InvalidRequest, NotFound
from weft.model.manifest import parse_manifest

_HERE = ControlPlane()


async def delete(
    kind: Annotated[
        str | None, Parameter(help="agent, route, queue, topic, gateway and so on.", show_default=False)
    ] = None,
    name: Annotated[str | None, Parameter(help="Its name.", show_default=False)] = None,
    /,
    *,
    file: FileOption = (),
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Remove one resource, or (with -f) those of a manifest that are there.

    An agent that `weft up` started for it is drained and stopped.
    """
    if bool(file) == bool(kind):
        raise InvalidRequest("say what to delete: either KIND NAME, or -f FILE")
    removed = (
        await _delete_listed(read_manifests(file), where) if file else await _delete_one(kind, name, where)
    )
    if output is Output.JSON:
        print_json([{"kind": kind, "name": name, "outcome": "deleted"} for kind, name in removed])
        return
    for removed_kind, removed_name in removed:
        print(f"{removed_kind}/{removed_name} deleted")


async def _delete_one(kind: str | None, name: str | None, where: ControlPlane) -> list[tuple[str, str]]:
    if kind is None or name is None:
        raise InvalidRequest(f"say which {kind} to delete: `weft delete {kind} NAME`")
    async with control_api(where) as api:
        await api.delete(kind, name)
    return [(kind, name)]


async def _delete_listed(manifests: Manifests, where: ControlPlane) -> list[tuple[str, str]]:
    with manifests.located():
        listed = [(each.kind, each.metadata.name) for each in parse_manifest(manifests.text, manifests.name)]
    removed = []
    async with control_api(where) as api:
        for kind, name in listed:
            try:
                await api.delete(kind.lower(), name)
            except NotFound:
                continue
            removed.append((kind, name))
    return removed
