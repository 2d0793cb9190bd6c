"""Lines of logs as people read them: text as it is, JSON taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.text import Text

from weft.cli.show import printable
from weft.local.log_files import LogLine

_LEVELS = {
    "debug": "dim",
    "info": "",
    "warn": "yellow",
    "warning": "yellow",
    "error": "red",
    "critical": "bold red",
    "fatal": "bold red",
}
_ALTERNATIVES = {
    "time": ("time", "timestamp", "ts", "@timestamp"),
    "level": ("level", "levelname", "severity", "log.level"),
    "message": ("message", "msg", "event"),
    "logger": ("logger", "logger_name", "name"),
    "error": ("error", "exception", "exc_info", "traceback", "stack_trace"),
}
"""What JSON loggers call the fields that all of them have; the SDK's are the first."""

_DATED = re.compile(r"\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d")
_ACCESS_SHOWN = ("log", "time", "method", "host", "path", "destination", "status", "ms")
_FAILED = 500


def record_of(line: LogLine) -> dict[str, Any] | None:
    """The JSON object that a line is; None if it is none."""
    if not line.text.startswith("{"):
        return None
    try:
        found = json.loads(line.text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_access(record: Mapping[str, Any] | None) -> bool:
    """Whether a line tells of a call, by the caller's sidecar."""
    return record is not None and record.get("log") == "access"


def document(line: LogLine) -> dict[str, Any]:
    """A line as JSON: `process`, `at` (seconds since 1970), `line`, and `record` if it is a JSON object."""
    record = record_of(line)
    told = {"process": line.process, "at": line.at, "line": line.text}
    return told if record is None else {**told, "record": record}


def rendered(line: LogLine) -> Text:
    """A line for people."""
    record = record_of(line)
    if record is None:
        return _plain(line)
    return _access(line, record) if is_access(record) else _structured(line, record)


def _plain(line: LogLine) -> Text:
    text = _shown(line.text)
    if _DATED.match(text):
        return Text(text)
    return _clock(line.at).append(text)


def _structured(line: LogLine, record: Mapping[str, Any]) -> Text:
    names = {meaning: _first(record, names) for meaning, names in _ALTERNATIVES.items()}
    level = str(record.get(names["level"], "")).lower()
    shown = _clock(_time(record.get(names["time"])) or line.at)
    shown.append(f"{_shown(level.upper()):7} ", style=_LEVELS.get(level, ""))
    if names["logger"] in record:
        shown.append(f"{_value(record[names['logger']])}: ", style="dim")
    shown.append(_value(record.get(names["message"], "")))
    _append_rest(shown, {name: each for name, each in record.items() if name not in names.values()})
    error = record.get(names["error"])
    if error:
        lines = error.splitlines() if isinstance(error, str) else [_value(error)]
        shown.append("".join(f"\n    {_shown(each)}" for each in lines), style="red")
    return shown


def _access(line: LogLine, record: Mapping[str, Any]) -> Text:
    status = record.get("status")
    failed = not isinstance(status, int) or status == 0 or status >= _FAILED
    to = record.get("host") or record.get("destination", "")
    shown = _clock(_time(record.get("time")) or line.at)
    shown.append(f"{_value(record.get('method', ''))} {_value(to)}{_value(record.get('path', ''))} ")
    shown.append(_value(status or "no answer"), style="red" if failed else "green")
    shown.append(f" {_value(record.get('ms', '?'))}ms")
    _append_rest(shown, {name: each for name, each in record.items() if name not in _ACCESS_SHOWN})
    return shown


def _append_rest(shown: Text, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if value not in (None, ""):
            shown.append(f" {_shown(name)}={_value(value)}", style="dim")


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((each for each in names if each in record), names[0])


def _time(value: Any) -> float | None:
    """A time of a log, whether in seconds since 1970 or as text."""
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdecimal():
            return datetime.fromisoformat(value).timestamp()
        return float(value)
    except (ValueError, TypeError, OverflowError):
        return None


def _clock(at: float) -> Text:
    """The time of day, here."""
    try:
        when = datetime.fromtimestamp(at).astimezone() if at else None
    except (ValueError, OverflowError, OSError):
        when = None
    return Text().append(f"{when:%H:%M:%S}.{when.microsecond // 1000:03} " if when else "", style="dim")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _shown(value)
    return _shown(json.dumps(value, ensure_ascii=False, default=str))


def _shown(text: str) -> str:
    return printable(text.expandtabs(4))
