"""Logs of Weft's processes and of agents: text or JSON lines, without secrets, with the call they are of.

| field of a JSON line | what |
|---|---|
| `time` | RFC 3339, UTC, milliseconds |
| `level` | `debug`, `info`, `warning`, `error` or `critical` |
| `logger` | who says it: `weft.agent`, or the name of the program's own logger |
| `message` | the text |
| `agent` | `<type>.<instance>`, for sidecars and agents |
| `trace_id`, `span_id` | of the call during which it was said |
| `context` | the conversation of that call |
| `error` | the traceback, if there is one |
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

from weft.tracing.redaction import redacted

FORMAT_VARIABLE: Final = "WEFT_LOG_FORMAT"
"""Environment variable: `text` (the default) or `json`."""

MAX_LINE: Final = 64 * 1024
"""Characters of one message or traceback; the rest is cut."""

CALL_FIELDS: Final = ("trace_id", "span_id", "context")

CallFields = Callable[[], Mapping[str, str]]
"""Tells those of CALL_FIELDS that the call being handled has; empty where none is."""

_SHOWN: Final = {"trace_id": "trace", "context": "context"}


def no_call() -> Mapping[str, str]:
    """What a process says of calls that handles none."""
    return {}


def start_logging(
    text: str,
    environ: Mapping[str, str],
    *,
    level: int | str = logging.INFO,
    agent: str = "",
    fields: CallFields = no_call,
    stream: TextIO | None = None,
) -> None:
    """Have this process log to `stream` (standard error), unless somebody has set up logging already.

    `text` is the format of text lines, as `logging` has it, and `agent` who speaks in JSON lines.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    wanted = environ.get(FORMAT_VARIABLE, "").strip().lower()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(CallFilter(fields))
    handler.setFormatter(JsonFormatter(agent) if wanted == "json" else TextFormatter(text))
    root.addHandler(handler)
    root.setLevel(level)
    if wanted not in {"", "text", "json"}:
        logging.getLogger(__name__).warning("%s is text or json, not %r", FORMAT_VARIABLE, wanted[:32])


class CallFilter(logging.Filter):
    """Lets everything through, and notes of which call it is.

    A program that sets up logging itself gives it to its handlers: then `%(trace_id)s`, `%(span_id)s` and
    `%(context)s` can be in their formats. They are empty outside of calls.
    """

    def __init__(self, fields: CallFields) -> None:
        super().__init__()
        self._fields = fields

    def filter(self, record: logging.LogRecord) -> bool:
        """Note it."""
        told = self._fields()
        for name in CALL_FIELDS:
            if not hasattr(record, name):
                setattr(record, name, told.get(name, ""))
        return True


class TextFormatter(logging.Formatter):
    """Text as `logging` makes it, with trace and conversation behind, if there are any."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """The line without the traceback."""
        line = super().formatMessage(record)
        told = [f" {shown}={found}" for name, shown in _SHOWN.items() if (found := getattr(record, name, ""))]
        return line + "".join(told)

    def format(self, record: logging.LogRecord) -> str:
        """All of it."""
        return redacted(_cut(super().format(record)))


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, agent: str = "") -> None:
        """`agent` is who speaks, if it is one."""
        super().__init__()
        self._agent = agent

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told = {name: str(getattr(record, name, "")) for name in CALL_FIELDS}
        fields = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(_cut(record.getMessage())),
            "agent": self._agent,
            **told,
            "error": redacted(_cut(self._error(record))),
        }
        return json.dumps({name: value for name, value in fields.items() if value or name == "message"})

    def _error(self, record: logging.LogRecord) -> str:
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        stack = self.formatStack(record.stack_info) if record.stack_info else ""
        return "\n".join(filter(None, (record.exc_text, stack)))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}… [cut: {len(text)} characters in all]"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
