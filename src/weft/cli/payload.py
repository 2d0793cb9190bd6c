"""Payloads on the command line: JSON, files, and `NAME=VALUE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from weft.errors import InvalidRequest
from weft.sdk.wire import MAX_REQUEST_BYTES

STANDARD_INPUT = "-"

PayloadFile = Annotated[
    str | None,
    Parameter(
        name=["--file", "-f"],
        help="A file with the payload, in JSON; - for standard input.",
        show_default=False,
        allow_leading_hyphen=True,
    ),
]


def payload(words: Sequence[str], file: str | None) -> Any:
    """The payload that the words of a command, or a file, say; None if nothing does.

    One word may be JSON; else each is NAME=VALUE or NAME:=JSON. Raises InvalidRequest.
    """
    if file is not None:
        if words:
            raise InvalidRequest("give a payload either in the command or with -f, not both")
        return parse_json(read_file(file), STANDARD_INPUT if file == STANDARD_INPUT else f"the file {file}")
    if len(words) == 1:
        try:
            return json.loads(words[0])
        except ValueError:
            if "=" not in words[0]:
                raise InvalidRequest(
                    f"payload {words[0][:100]!r} is neither JSON nor NAME=VALUE; a text is JSON in quotation "
                    "marks: '\"like this\"'"
                ) from None
    return dict(argument(each) for each in words) or None


def argument(text: str) -> tuple[str, Any]:
    """The name and the value in NAME=VALUE (a text) or NAME:=VALUE (JSON). Raises InvalidRequest."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip(":"):
        raise InvalidRequest(f"argument {text!r} is neither NAME=VALUE nor NAME:=JSON")
    return (name[:-1], parse_json(value, f"argument {name}")) if name.endswith(":") else (name, value)


def parse_json(text: str | bytes, what: str) -> Any:
    """The value that `text` is in JSON; errors call it `what`. Raises InvalidRequest."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"{what} is not JSON: {error}") from error


def read_file(name: str) -> bytes:
    """What is in a file, or (`-`) standard input; at most MAX_REQUEST_BYTES. Raises InvalidRequest."""
    if name == STANDARD_INPUT:
        return check_size(sys.stdin.buffer.read(MAX_REQUEST_BYTES + 1), "standard input")
    try:
        with Path(name).open("rb") as file:
            return check_size(file.read(MAX_REQUEST_BYTES + 1), name)
    except OSError as error:
        raise InvalidRequest(f"{name} cannot be read: {error.strerror or error}") from error


def check_size(content: bytes, what: str) -> bytes:
    """Return `content` if it is not too large to be sent; else raise InvalidRequest."""
    if len(content) > MAX_REQUEST_BYTES:
        raise InvalidRequest(f"{what} is larger than {MAX_REQUEST_BYTES} bytes")
    return content
