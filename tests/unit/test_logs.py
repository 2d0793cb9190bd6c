"""What processes log: as text or JSON lines, of which call it is, and never a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from weft import Agent
from weft.sdk.call_fields import call_fields
from weft.testing import InMemoryMesh
from weft.tracing.logs import start_logging

TRACE = "a" * 32
CALL = {"traceparent": f"00-{TRACE}-{'b' * 16}-00", "x-weft-context": "chat-1"}
SECRETS = (
    "Authorization: Bearer abcdefgh12345678",
    "key weft_0123456789abcdef",
    "sk-0123456789abcdef",
    "AKIA0123456789ABCDEF",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    '{"password": "hunt\\"er2abc"}',
    "db_password=hunter2abc",
    "postgres://user:hunter2abc@db/",
    "apiKey: 'hunter2abc'",
    "Authorization: Token hunter2abc",
    "Cookie: theme=dark; session=hunter2abc",
    "AWS_SECRET_ACCESS_KEY=hunter2abc",
    "-----BEGIN PRIVATE KEY-----\nhunter2abc\n-----END PRIVATE KEY-----",
)


Begin = Callable[..., io.StringIO]
"""Begins to log as a process does that has just started; what it says can be read in what is returned."""


@pytest.fixture
def begin() -> Iterator[Begin]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def begun(text: str = "%(message)s", log_format: str = "", **options: Any) -> io.StringIO:
        root.handlers.clear()  # pytest's own
        stream = io.StringIO()
        start_logging(text, {"WEFT_LOG_FORMAT": log_format}, stream=stream, **options)
        return stream

    yield begun
    root.handlers[:] = handlers
    root.setLevel(level)


async def said(begin: Begin, log_format: str, *messages: str) -> list[str]:
    """The lines of an agent that says `messages` in a handler."""
    text = "%(levelname)s %(name)s: %(message)s"
    stream = begin(text, log_format, agent="editor.e-1", fields=call_fields)
    agent = Agent("editor")

    @agent.handles("edit")
    def edit() -> None:
        for each in messages:
            logging.getLogger("mine").warning("%s", each)

    async with InMemoryMesh() as mesh:
        mesh.add(agent)
        await mesh.client.request("editor", "edit", headers=CALL)
    logging.getLogger("mine").warning("outside")
    return [each for each in stream.getvalue().splitlines() if "mine" in each]


async def test_a_json_line_says_who_says_what_of_which_call(begin: Begin) -> None:
    inside, outside = (json.loads(each) for each in await said(begin, "json", "two\nlines, ü"))
    assert inside.pop("time").endswith("Z")
    assert inside == {
        "level": "warning",
        "logger": "mine",
        "message": "two\nlines, ü",
        "agent": "editor.e-1",
        "trace_id": TRACE,
        "span_id": "b" * 16,
        "context": "chat-1",
    }
    assert outside.keys() == {"time", "level", "logger", "message", "agent"}


async def test_a_text_line_is_as_ever_with_trace_and_conversation_behind(begin: Begin) -> None:
    inside, outside = await said(begin, "text", "hello")
    assert inside == f"WARNING mine: hello trace={TRACE} context=chat-1"
    assert outside == "WARNING mine: outside"


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_no_secret_is_logged(begin: Begin, log_format: str) -> None:
    lines = "\n".join(await said(begin, log_format, *SECRETS, "the token count is 5, max_tokens: 7"))
    assert lines.count("[redacted]") == len(SECRETS)
    for part in ("hunter2abc", "er2abc", "abcdefgh12345678", "0123456789"):
        assert part not in lines
    assert "the token count is 5, max_tokens: 7" in lines


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_is_told_without_secrets_too(begin: Begin, log_format: str) -> None:
    stream = begin(log_format=log_format)
    try:
        int("password=hunter2abc")
    except ValueError:
        logging.getLogger("mine").exception("it failed")
    told: Any = json.loads(stream.getvalue())["error"] if log_format == "json" else stream.getvalue()
    assert "Traceback" in told
    assert "hunter2abc" not in told


def test_who_has_set_up_logging_keeps_it_and_nonsense_is_text(begin: Begin) -> None:
    stream = begin(log_format="xml")
    start_logging("%(message)s", {"WEFT_LOG_FORMAT": "json"}, stream=stream)
    logging.getLogger("mine").warning("hello")
    assert stream.getvalue().splitlines() == ["WEFT_LOG_FORMAT is text or json, not 'xml'", "hello"]


def test_a_line_has_an_end(begin: Begin) -> None:
    stream = begin()
    logging.getLogger("mine").warning("%s", "x" * 1_000_000)
    assert len(stream.getvalue()) < 70_000
