"""Errors, as they are read from answers."""

from __future__ import annotations

import json

import pytest

from weft.errors import (
    AgentFailed,
    Interrupted,
    InvalidRequest,
    MeshError,
    NoHealthyAgent,
    NoSuchAgent,
    NotFound,
    Refused,
    TimedOut,
    Unavailable,
)
from weft.sdk.problem import Problem, read_error, read_event_error


@pytest.mark.parametrize(
    "error",
    [InvalidRequest, NotFound, NoSuchAgent, Unavailable, NoHealthyAgent, Refused, Interrupted, TimedOut],
)
def test_an_error_of_the_mesh_arrives_as_itself(error: type[MeshError]) -> None:
    problem = Problem.of(error("what happened"))
    read = read_error("a.mesh", problem.status, problem.headers(), problem.body())
    assert (type(read), read.detail) == (error, "what happened")
    assert type(read_event_error("a.mesh", problem.body().decode())) is error


@pytest.mark.parametrize("body", [b"", b"Traceback: boom", b"\xff\xfe", b"[1, 2]", b'{"error": {"a": 1}}'])
def test_a_foreign_agents_error_is_its_own_whatever_it_says(body: bytes) -> None:
    error = read_error("a.mesh", 500, {}, body)
    assert isinstance(error, AgentFailed)
    assert error.agent_status == 500
    assert error.detail


def test_a_foreign_agents_words_are_repeated_within_bounds() -> None:
    body = json.dumps({"error": "x" * 100_000}).encode()
    assert read_error("a.mesh", 500, {}, body).detail == "x" * 4096


def test_a_refusal_without_a_code_is_a_refusal() -> None:
    assert isinstance(read_error("a.mesh", 503, {"x-weft-refused": "unreachable"}, b""), Refused)


def test_an_unknown_code_is_taken_for_the_agents_own_error() -> None:
    assert isinstance(read_error("a.mesh", 500, {"x-weft-error": "from-the-future"}, b""), AgentFailed)


@pytest.mark.parametrize("data", ["", "oops", "[]", '{"status": "many"}', '{"detail": 7}'])
def test_a_garbled_error_event_is_the_agents_own_error(data: str) -> None:
    assert isinstance(read_event_error("a.mesh", data), AgentFailed)
