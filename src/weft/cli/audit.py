"""`weft audit`: who did, or was refused, what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from cyclopts import Parameter

from weft.cli.api import control_api
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import print_json, print_table
from weft.errors import InvalidRequest

MAX_RECORDS = 1000

_HERE = ControlPlane()


async def audit(
    *,
    limit: Annotated[int, Parameter(help=f"At most so many records, up to {MAX_RECORDS}.")] = 100,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Show the last changes and denials: who, what, when, and the policy that decided. The newest is last."""
    if not 1 <= limit <= MAX_RECORDS:
        raise InvalidRequest(f"--limit must be 1 to {MAX_RECORDS}")
    async with control_api(where) as api:
        records = await api.audit(limit)
    if output is Output.JSON:
        print_json(records)
        return
    rows = (
        (
            datetime.fromtimestamp(each["time"]).astimezone().isoformat(sep=" ", timespec="seconds"),
            each["who"],
            each["action"],
            each["target"],
            each["outcome"],
            each["policy"] or each["reason"],
        )
        for each in records
    )
    columns = ("TIME", "WHO", "ACTION", "TARGET", "OUTCOME", "POLICY OR REASON")
    print_table(columns, rows, none="nothing was changed or denied yet")
