from __future__ import annotations

import asyncio
import logging

import pytest

from weft.sidecar.envoy_log import EnvoyLog


async def relayed(caplog: pytest.LogCaptureFixture, *lines: str, log: EnvoyLog) -> list[tuple[str, str]]:
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    stream = asyncio.StreamReader(limit=4096)
    feeding = asyncio.create_task(log.relay(stream))
    for line in lines:
        stream.feed_data(line.encode() + b"\n")
        await asyncio.sleep(0)
    stream.feed_eof()
    await asyncio.wait_for(feeding, 5)
    return [(record.levelname, record.message) for record in caplog.records]


async def test_lines_keep_their_level_and_the_last_warning_is_remembered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = EnvoyLog()
    records = await relayed(caplog, "warning config: rejected", "  and why", "info main: started", log=log)
    assert records == [
        ("WARNING", "envoy: config: rejected"),
        ("WARNING", "envoy:   and why"),
        ("INFO", "envoy: main: started"),
    ]
    assert log.last_line == "  and why"


async def test_what_envoy_says_of_unfinished_apis_is_for_those_who_look_closely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = EnvoyLog()
    line = "warning misc: message 'X' is contained in proto file 'x.proto' marked as work-in-progress. API"
    ((level, _),) = await relayed(caplog, line, log=log)
    assert level == "DEBUG"
    assert not log.last_line


async def test_a_flood_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    records = await relayed(caplog, *("info main: " + "x" * length for length in range(200)), log=EnvoyLog())
    assert len(records) == 50


async def test_a_line_that_repeats_the_one_before_is_left_out_numbers_aside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = [f"warning config: stream closed since {seconds}s ago" for seconds in range(20)]
    assert len(await relayed(caplog, *lines, "warning main: other", lines[0], log=EnvoyLog())) == 3


async def test_long_lines_are_cut_and_endless_ones_dropped(caplog: pytest.LogCaptureFixture) -> None:
    records = await relayed(
        caplog, "info main: " + "x" * 3000, "y" * 100_000, "info main: after", log=EnvoyLog()
    )
    assert len(records[0][1]) < 1100
    assert records[-1] == ("INFO", "envoy: main: after")


async def test_a_muted_log_says_nothing_but_remembers(caplog: pytest.LogCaptureFixture) -> None:
    log = EnvoyLog()
    log.muted = True
    assert await relayed(caplog, "warning main: caught SIGTERM", log=log) == []
    assert log.last_line == "main: caught SIGTERM"
