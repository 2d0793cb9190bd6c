"""The guard through which all data goes into grids and charts.

NiceGUI evaluates the value of every dict key that begins with ":" as JavaScript, wherever it stands in what a
grid or a chart is given. Names and attributes come from agents, so no such key may come from data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 2000
"""Characters of one text in a grid or a chart."""


def plain(data: Any) -> Any:
    """`data` as JSON types, without anything that a browser would run.

    Keys that begin with ":" lose that; what is no JSON type becomes text, and numbers that JSON does not have
    become None.
    """
    match data:
        case None | bool() | int():
            return data
        case float():
            return data if math.isfinite(data) else None
        case str():
            return data[:MAX_TEXT]
        case Mapping():
            return {str(key).lstrip(":"): plain(value) for key, value in data.items()}
        case list() | tuple():
            return [plain(each) for each in data]
    return str(data)[:MAX_TEXT]
