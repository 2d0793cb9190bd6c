"""Reading a token from a file that nobody else can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from weft.errors import InvalidRequest, NotFound
from weft.model.operator import is_token

TOKEN_FILE = "token"  # noqa: S105 -- its name
"""In a mesh's directory: the token of whoever started it."""

_MAX_BYTES = 4096


def read_token(file: Path) -> str:
    """The token in `file`.

    Raises NotFound if there is no such file, InvalidRequest if others can read it, or it holds no token.
    """
    try:
        with file.open("rb") as source:
            mode = os.fstat(source.fileno()).st_mode
            content = source.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(f"there is no token in {file}: the file does not exist") from error
    except OSError as error:
        raise InvalidRequest(f"the token in {file} cannot be read: {error.strerror or error}") from error
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidRequest(
            f"others can read the token in {file}: `chmod 600 {file}`, or have a new one made"
        )
    return check_token(content.decode(errors="replace").strip(), str(file))


def check_token(text: str, source: str) -> str:
    """Return `text` if it has the form of a token, else raise InvalidRequest, which does not repeat it."""
    if not is_token(text):
        raise InvalidRequest(
            f"{source} holds no token: `weft token create` makes one, which begins with weft_"
        )
    return text
