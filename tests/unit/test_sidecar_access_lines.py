"""Lines of calls go on as they are, so many at a time, and apart from denials."""

from __future__ import annotations

import asyncio
import io
import json

from tests.clock import Clock

from weft.model.audit import AuditRecord
from weft.sidecar.access_lines import LINES_PER_WINDOW, WINDOW_SECONDS, AccessLines, is_access_line
from weft.sidecar.denials import relay_denials

LINE = '{"destination":"echo","log":"access","ms":3,"status":200,"time":"1795307089.498"}'
DENIAL = '{"kind":"egress","time":"1795257900.134","method":"GET","authority":"a.example"}'


def test_no_caller_can_make_a_denial_look_like_a_line_of_a_call() -> None:
    assert is_access_line(LINE)
    for said in ('"log":"access"', '","log":"access","x":"'):
        assert not is_access_line(json.dumps({"kind": "call", "path": said}, separators=(",", ":")))


async def test_lines_of_calls_are_passed_on_and_denials_are_reported() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data("\n".join([LINE, DENIAL, "nonsense", LINE, ""]).encode())
    reader.feed_eof()
    denials: list[AuditRecord] = []
    output = io.StringIO()
    access = AccessLines(output).write
    await relay_denials(reader, denials.append, callee="echo", observer="echo.e-1", access=access)
    assert output.getvalue() == f"{LINE}\n{LINE}\n"
    assert [each.action for each in denials] == ["reach outside"]


def test_what_is_too_much_is_left_out_and_told() -> None:
    clock, output = Clock(), io.StringIO()
    lines = AccessLines(output, clock)
    for _ in range(LINES_PER_WINDOW + 3):
        lines.write(LINE)
    assert output.getvalue().count("\n") == LINES_PER_WINDOW
    clock.now += WINDOW_SECONDS
    lines.write(LINE)
    *_, told, last = output.getvalue().splitlines()
    assert (json.loads(told), last) == ({"log": "access", "leftOut": 3}, LINE)
