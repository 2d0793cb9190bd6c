"""`weft context`: what is kept of conversations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from weft.cli.api import control_api
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import age, duration, print_facts, print_json, print_table, shortened
from weft.local.context_control import ContextApi
from weft.model.tenant import DEFAULT_TENANT

app = App(name="context", help="See what is kept of a conversation, and forget it.")

_HERE = ControlPlane()

_MOST = 100

_Id = Annotated[str, Parameter(help="The conversation's id, as in `x-weft-context`.")]
_Tenant = Annotated[
    str, Parameter(help="Whose conversation it is: the attested label `tenant` of its agents.")
]


@app.command
async def show(
    context_id: _Id,
    /,
    *,
    tenant: _Tenant = DEFAULT_TENANT,
    messages: Annotated[
        int, Parameter(help="The last so many messages.", validator=Number(gte=1, lte=_MOST))
    ] = 20,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Show the state, the artifacts and the last messages of a conversation.

    Needs the scope operator, and is audited: conversations hold what people said.
    """
    async with control_api(where) as api:
        found = await ContextApi(api).context(context_id, tenant, messages=messages)
    if output is Output.JSON:
        print_json(found)
        return
    print_facts(_facts(found))
    if found["artifacts"]:
        artifacts = (
            (each["name"], each["mediaType"], str(each["size"]), age(each["at"]))
            for each in found["artifacts"]
        )
        print_table(("ARTIFACT", "TYPE", "BYTES", "AGE"), artifacts, none="")
    said = (
        (
            str(each["number"]),
            each["role"],
            _author(each["author"]),
            age(each["at"]),
            _content(each["content"]),
        )
        for each in found["messages"]
    )
    print_table(("MESSAGE", "ROLE", "AUTHOR", "AGE", "CONTENT"), said, none="there are no messages")


@app.command
async def delete(
    context_id: _Id, /, *, tenant: _Tenant = DEFAULT_TENANT, where: ControlPlane = _HERE
) -> None:
    """Forget a conversation: its messages, its state, its artifacts."""
    async with control_api(where) as api:
        await ContextApi(api).delete(context_id, tenant)
    print(f"context/{context_id} deleted")


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    state = json.dumps(found["state"], ensure_ascii=False) if found["stateRevision"] else ""
    return [
        ("context", found["id"]),
        ("tenant", found["tenant"]),
        ("age", age(found["createdAt"])),
        ("kept for", duration(found["expiresAt"] - found["createdAt"])),
        ("messages", str(found["messageCount"])),
        ("state", shortened(state, 500)),
    ]


def _author(spiffe_id: str) -> str:
    return "/".join(spiffe_id.split("/")[-2:])


def _content(content: Any) -> str:
    return shortened(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
