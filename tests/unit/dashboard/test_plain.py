from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest

from weft.dashboard.plain import MAX_TEXT, plain


def keys(data: Any) -> list[str]:
    if isinstance(data, dict):
        return [*data, *(key for value in data.values() for key in keys(value))]
    return [key for each in data for key in keys(each)] if isinstance(data, list) else []


@pytest.mark.parametrize("key", [":x", "::x", ":", ":onGridReady", ":formatter"])
def test_no_key_that_a_browser_would_run_is_left_however_deep_it_stands(key: str) -> None:
    data = {key: "alert(1)", "rows": [{key: {key: ["alert(1)", ({key: 1},)]}}]}
    assert not [each for each in keys(plain(data)) if each.startswith(":")]


def test_what_is_json_stays_as_it_is() -> None:
    data = {"text": "<b>:x</b>", "n": 1, "f": 0.5, "yes": True, "none": None, "list": [1, "a"], "a:b": 1}
    assert plain(data) == data


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_become_nothing(number: float) -> None:
    assert plain([number]) == [None]
    json.dumps(plain({"x": number}), allow_nan=False)


def test_what_is_no_json_becomes_text_of_limited_length() -> None:
    assert plain(Decimal("1.5")) == "1.5"
    assert len(plain("x" * (MAX_TEXT + 1))) == MAX_TEXT
    assert plain({1: b"x"}) == {"1": "b'x'"}
