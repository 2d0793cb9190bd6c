"""The logs of a mesh, read again while they are written."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import aclosing
from pathlib import Path

import pytest

from weft.cli.log_lines import document, is_access, record_of, rendered
from weft.errors import NotFound, Unavailable
from weft.local.log_files import LogLine, LogReader, follow, meant, processes, recent
from weft.local.logs import MAX_LOG_BYTES, ProcessLog, stamp

NAMES = ["a-1", "control", "door", "llm-sim", "nats", "summarizer-1", "summarizer-2"]
AT = 1_795_306_051.25


def everything(_line: LogLine) -> bool:
    return True


def write(directory: Path, name: str, *lines: str, at: float = AT) -> None:
    with (directory / f"{name}.log").open("a") as file:
        file.writelines(f"{stamp(at + number)} {line}\n" for number, line in enumerate(lines))


async def relay(directory: Path, name: str, *lines: str) -> None:
    """Have the lines written as those of a process are."""
    reading, writing = os.pipe()
    log = ProcessLog(name, directory, lambda _name, _line: None)
    relaying = asyncio.create_task(log.relay(reading))
    await asyncio.to_thread(_write, writing, lines)
    await relaying


def _write(writing: int, lines: tuple[str, ...]) -> None:
    with open(writing, "w") as pipe:
        pipe.writelines(f"{each}\n" for each in lines)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, NAMES),
        ("summarizer", ["summarizer-1", "summarizer-2"]),
        ("summarizer/summarizer-2", ["summarizer-2"]),
        ("summarizer-2", ["summarizer-2"]),
        ("nats", ["nats"]),
        ("llm-sim", ["llm-sim"]),
    ],
)
def test_logs_are_meant_by_part_type_and_instance(wanted: str | None, found: list[str]) -> None:
    assert meant(wanted, NAMES) == found


@pytest.mark.parametrize("wanted", ["nobody", "summarizer/a-1", "summarizer/", "summ", "../nats", ""])
def test_what_nobody_is_called_is_named_with_what_there_is(wanted: str) -> None:
    with pytest.raises(NotFound, match="there are logs of a, control, door, llm-sim, nats, summarizer"):
        meant(wanted, NAMES)


def test_where_there_are_no_logs_it_is_said_whose_there_would_be(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="weft up"):
        processes(tmp_path / "missing")


def test_lines_of_several_are_in_the_order_of_time_and_the_last_ones_count(tmp_path: Path) -> None:
    write(tmp_path, "a-1", "one", "three", at=AT)
    write(tmp_path, "a-2", "two", "four", at=AT + 0.5)
    lines = recent(tmp_path, "a", tail=3, keep=everything)
    assert [(each.process, each.text) for each in lines] == [
        ("a-2", "two"),
        ("a-1", "three"),
        ("a-2", "four"),
    ]
    assert lines[0].at == AT + 0.5
    assert recent(tmp_path, "a", tail=0, keep=everything) == []


def test_a_line_without_a_time_has_that_of_the_one_before(tmp_path: Path) -> None:
    write(tmp_path, "a-1", "Traceback")
    with (tmp_path / "a-1.log").open("ab") as file:
        file.write(b"  deep \xff inside\n")
    lines = recent(tmp_path, "a", tail=9, keep=everything)
    assert [(each.at, each.text) for each in lines] == [(AT, "Traceback"), (AT, "  deep � inside")]


async def test_what_a_process_writes_is_read_with_its_time(tmp_path: Path) -> None:
    await relay(tmp_path, "a-1", "hello", "wörld")
    lines = recent(tmp_path, "a", tail=9, keep=everything)
    assert [each.text for each in lines] == ["hello", "wörld"]
    assert lines[0].at > AT - 1e9


async def test_no_line_is_lost_nor_told_twice_while_logs_are_put_away(tmp_path: Path) -> None:
    filling = "x" * 60_000
    await relay(tmp_path, "a-1", "the first")
    read: list[str] = []
    with LogReader(tmp_path, "a-1") as log:
        for number in range(3 * MAX_LOG_BYTES // len(filling)):
            await relay(tmp_path, "a-1", f"{number} {filling}")
            if number % 7 == 0:
                read += [each.text.split()[0] for each in log.all()]
        read += [each.text.split()[0] for each in log.all()]
    assert (tmp_path / "a-1.log.1").exists()
    assert read == ["the", *map(str, range(3 * MAX_LOG_BYTES // len(filling)))]


def test_a_reader_begins_with_the_log_that_was_put_away(tmp_path: Path) -> None:
    write(tmp_path, "a-1", "older")
    (tmp_path / "a-1.log").rename(tmp_path / "a-1.log.1")
    write(tmp_path, "a-1", "newer")
    assert [each.text for each in recent(tmp_path, "a-1", tail=9, keep=everything)] == ["older", "newer"]


def test_a_line_that_is_half_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    with LogReader(tmp_path, "a-1") as log, (tmp_path / "a-1.log").open("w") as file:
        print(f"{stamp(AT)} be", end="", file=file, flush=True)
        assert list(log.all()) == []
        print("gun", file=file, flush=True)
        assert [each.text for each in log.all()] == ["begun"]


async def test_a_follower_hears_of_new_lines_and_new_instances(tmp_path: Path) -> None:
    write(tmp_path, "a-1", "one")
    write(tmp_path, "b-1", "another's")
    async with asyncio.timeout(30), aclosing(follow(tmp_path, "a", tail=9, keep=everything)) as lines:
        assert (await anext(lines)).text == "one"
        write(tmp_path, "a-1", "two")
        assert (await anext(lines)).text == "two"
        write(tmp_path, "b-1", "another's")
        write(tmp_path, "a-2", "of a new one")
        assert (await anext(lines)).process == "a-2"


def test_a_plain_line_has_a_time_unless_it_says_its_own() -> None:
    assert rendered(LogLine("a-1", AT, "hello")).plain.endswith(".250 hello")
    own = "2026-11-22 00:18:30,794 INFO weft.agent: hello"
    assert rendered(LogLine("a-1", AT, own)).plain == own


def test_nothing_that_a_program_writes_reaches_the_terminal_as_an_order() -> None:
    for text in ("\x1b[2Jgone", '{"message": "\\u001b[2Jgone", "x\\u001b[2J": 1}', "[red]x[/red]\x07"):
        shown = rendered(LogLine("a-1", AT, text))
        assert "\x1b" not in shown.plain
        assert "\x07" not in shown.plain


def test_a_json_line_is_taken_apart() -> None:
    record = {
        "time": "2026-11-22T00:18:30.794Z",
        "level": "warning",
        "logger": "crew",
        "message": "slow",
        "trace_id": "abc",
        "took": 1.5,
        "error": "Traceback\n  line 1",
    }
    shown = rendered(LogLine("a-1", AT, json.dumps(record))).plain
    assert "WARNING crew: slow trace_id=abc took=1.5\n    Traceback\n      line 1" in shown
    assert not shown.startswith("{")


@pytest.mark.parametrize(
    "text", ["{", '{"level": {}, "time": [], "message": null}', "[1]", '{"time": 1e300}', "{" * 100_000]
)
def test_whatever_looks_like_json_is_shown_somehow(text: str) -> None:
    assert rendered(LogLine("a-1", AT, text)).plain


def test_a_line_of_a_call_is_shown_as_one() -> None:
    record = {
        "log": "access",
        "time": "1795306051.250",
        "method": "POST",
        "host": "summarizer.mesh",
        "path": "/rpc",
        "status": 503,
        "ms": 12,
        "error": "no-healthy-agent",
    }
    line = LogLine("a-1", AT, json.dumps(record))
    assert is_access(record_of(line))
    assert "POST summarizer.mesh/rpc 503 12ms error=no-healthy-agent" in rendered(line).plain
    assert document(line) == {"process": "a-1", "at": AT, "line": line.text, "record": record}
    assert document(LogLine("a-1", AT, "x")) == {"process": "a-1", "at": AT, "line": "x"}
