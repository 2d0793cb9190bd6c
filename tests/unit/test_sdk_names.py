"""The public names, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import weft


def test_every_public_name_can_be_had() -> None:
    for name in weft.__all__:
        assert getattr(weft, name).__name__ == name
    assert set(weft.__all__) <= set(dir(weft))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Manager"):
        _ = weft.Manager


def test_the_errors_are_loaded_without_client_and_server() -> None:
    program = "import sys, weft.errors; print({'httpx', 'starlette', 'uvicorn', 'pydantic'} & {*sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert loaded.stdout.strip() == "set()"
