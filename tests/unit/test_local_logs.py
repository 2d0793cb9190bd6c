"""What is remembered of what a process wrote."""

from __future__ import annotations

import os
from pathlib import Path

from weft.local.logs import ProcessLog


async def test_the_last_line_is_the_programs_not_its_sidecars_routine(tmp_path: Path) -> None:
    heard: list[str] = []
    log = ProcessLog("chatter-1", tmp_path, lambda _, line: heard.append(line))
    reading, writing = os.pipe()
    lines = [
        "weft chatter.chatter-1: INFO registered chatter.chatter-1 at 127.0.0.1:1",
        "ModuleNotFoundError: No module named 'chat'",
        "weft chatter.chatter-1: INFO the program ended with exit code 1",
    ]
    os.write(writing, "\n".join([*lines, ""]).encode())
    os.close(writing)

    await log.relay(reading)

    assert log.last_line == "ModuleNotFoundError: No module named 'chat'"
    assert heard == lines
    assert (tmp_path / "chatter-1.log").read_text().splitlines()[-1].endswith(lines[-1])


async def test_a_sidecars_warning_is_worth_remembering(tmp_path: Path) -> None:
    log = ProcessLog("chatter-1", tmp_path, lambda _name, _line: None)
    reading, writing = os.pipe()
    os.write(writing, b"weft chatter.chatter-1: WARNING NATS cannot be reached\n")
    os.close(writing)

    await log.relay(reading)

    assert log.last_line == "weft chatter.chatter-1: WARNING NATS cannot be reached"
