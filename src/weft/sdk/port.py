"""Where a program is to listen, as its sidecar tells it."""

from __future__ import annotations

from collections.abc import Mapping

from weft.errors import InvalidRequest

PORT_VARIABLES = ("WEFT_PORT", "PORT")
"""Environment variables that say where to listen; the first that is set counts."""

DEFAULT_PORT = 8080


def port_from(environ: Mapping[str, str]) -> int:
    """Return the port that `environ` names, 8080 if it names none. Raises InvalidRequest if it is no port."""
    for variable in PORT_VARIABLES:
        text = environ.get(variable, "")
        if text.isdecimal() and int(text) < 65536:
            return int(text)
        if text:
            raise InvalidRequest(f"{variable} must be a port, not {text!r}")
    return DEFAULT_PORT
