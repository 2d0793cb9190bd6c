"""What the commands for tasks, topics and gateways say and send, as far as no mesh is needed."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from weft.cli import joining
from weft.cli.following_task import TaskDisplay
from weft.cli.gateway import _rate, _row
from weft.cli.main import run
from weft.cli.payload import payload
from weft.cli.resuming import resumed
from weft.cli.show import shortened
from weft.cli.times import moment, seconds, short
from weft.cli.topic_table import event_line
from weft.errors import NotFound, Unavailable
from weft.local.messaging_control import Events
from weft.sdk.sse import Event


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], None),
        (["a=1", "b:=2"], {"a": "1", "b": 2}),
        (['{"a": "x=y"}'], {"a": "x=y"}),
        (["[1, 2]"], [1, 2]),
        (['"text"'], "text"),
        (["a=b=c"], {"a": "b=c"}),
    ],
)
def test_a_payload_is_json_or_names_with_values(words: list[str], value: Any) -> None:
    assert payload(words, None) == value


def test_a_payload_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "payload.json").write_text('{"n": 1}')
    assert payload([], str(tmp_path / "payload.json")) == {"n": 1}
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"[2]")))
    assert payload([], "-") == [2]


def test_lengths_of_time_have_units_up_to_days() -> None:
    assert [seconds(each, "--delay") for each in ("500ms", "90s", "2h", "30d")] == [0.5, 90, 7200, 30 * 86400]
    assert [short(each) for each in (None, 0.035, 1.52, 12.0, 300.0, 7200.0, 200_000.0)] == [
        *("", "35ms", "1.5s", "12s"),
        *("5m", "2h", "2d"),
    ]


def test_a_moment_is_so_long_ago_or_a_time() -> None:
    assert moment("2026-11-05T17:31:00Z", "--since") == 1793899860
    assert time.time() - 3700 < moment("1h", "--since") < time.time() - 3500


def test_a_rate_is_so_many_in_a_time() -> None:
    assert _rate("100/s") == {"requests": 100, "per": "1s"}
    assert _rate("10/30s") == {"requests": 10, "per": "30s"}
    key = {"name": "shop", "queues": [], "agents": None, "topics": ["a", "b"], "seesAll": True}
    row = _row({**key, "rate": _rate("9/h"), "createdAt": time.time(), "expiresAt": 1.0})
    assert row == ("shop", "9/h", "none", "all", "a, b", "yes", "0s", "expired")


def test_what_others_wrote_is_one_line_and_cannot_command_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shortened("a\n  b" + "c" * 200, 10) == "a bcccccc…"
    event = {"type": "t\x1b[2J", "data": "[bold]\x1b"}
    line = event_line({"topic": "orders", "sequence": 1, "publishedAt": 0.0, "event": event})
    assert "\x1b" not in line.plain
    with TaskDisplay() as display:
        display.show("partial", {"data": "[red]x\x1b[2J"})
        display.show("progress", {"data": {"fraction": 0.4, "message": "half\x1b"}})
    assert capsys.readouterr().out == "partial    [red]x\\x1b[2J\nprogress   40% half\\x1b\n"


async def test_a_stream_that_breaks_or_ends_is_begun_again() -> None:
    streams: list[list[Any]] = [
        ["a", "b", Unavailable("broke")],
        [Unavailable("cannot begin")],
        ["c"],
        [],
        ["d"],
    ]

    @asynccontextmanager
    async def stream(items: list[Any]) -> AsyncIterator[AsyncIterator[Event]]:
        async def events() -> AsyncIterator[Event]:
            for each in items:
                if isinstance(each, Unavailable):
                    raise each
                yield Event(each)

        yield events()

    def begin() -> Events:
        return stream(streams.pop(0))

    found = []
    async for event in resumed(begin):
        found.append(event.data)
        if event.data == "d":
            break
    assert found == ["a", "b", "c", "d"]


@pytest.mark.parametrize("error", [Unavailable("no mesh"), NotFound("no task")])
async def test_a_stream_that_cannot_begin_is_an_error(error: Exception) -> None:
    @asynccontextmanager
    async def refused() -> AsyncIterator[AsyncIterator[Event]]:
        raise error
        yield

    with pytest.raises(type(error)):
        await anext(resumed(refused))


def test_a_program_that_is_run_is_given_tasks_and_events(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(
        "weft.cli.processes.os.execve", lambda _path, command, _environ: became.append(command)
    )
    monkeypatch.setenv("WEFT_JOIN_TOKEN", "x")
    monkeypatch.setattr("weft.cli.run.addresses", lambda *_: {})
    given = [
        "--consume",
        "jobs=4",
        "--consume",
        "more",
        "--subscribe",
        "orders.*",
        "--subscribe-each",
        "news",
    ]
    run(["run", "--type", "a", *given, "--event-format", "mesh", "--", "program"])
    ((*_, arguments),) = [[command[3:] for command in became]]
    assert [each for each in arguments if not each.startswith("--trace-sampling=")] == [
        "--type=a",
        "--event-format=mesh",
        *("--consume=jobs=4", "--consume=more", "--subscribe=orders.*", "--subscribe-each=news"),
        *("--", "program"),
    ]
    assert joining.can_join({"WEFT_JOIN_TOKEN": "x"})
