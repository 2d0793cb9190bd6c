"""Agents of frameworks that know nothing of Weft run in a mesh, and use its models, tools and agents."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.weft_cli import EXAMPLES, Weft, weft_user

ENVIRONMENT = EXAMPLES.parent / ".venv-frameworks" / "bin"

pytestmark = [
    pytest.mark.skipif(
        not (ENVIRONMENT / "python").exists(), reason="no frameworks here: run 'make frameworks'"
    ),
    pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js here: install 'nodejs'"),
]

FRAMEWORKS = ("openai-agents", "pydantic-ai", "agent-framework", "langgraph")
WITH_TOOLS = FRAMEWORKS[:-1]


@pytest.fixture(scope="module")
def weft() -> Iterator[Weft]:
    """A user with a mesh in which all of them run."""
    with weft_user() as user:
        shutil.copytree(EXAMPLES, user.directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        user.environ["PATH"] = f"{ENVIRONMENT}{os.pathsep}{user.environ['PATH']}"
        user.up("examples/frameworks/mesh.yaml")
        yield user
        user.ok("down")


def asked(weft: Weft, agent: str, text: str) -> str:
    """What an agent answers."""
    return weft.ok("call", agent, "ask", f"text={text}", "--timeout", "60").strip()


@pytest.mark.parametrize("agent", FRAMEWORKS)
def test_a_framework_answers_with_a_model_of_the_mesh(weft: Weft, agent: str) -> None:
    assert (
        asked(weft, agent, "Say something. [[sim text='a word from the model']]") == "a word from the model"
    )


@pytest.mark.parametrize("agent", FRAMEWORKS)
def test_its_model_calls_another_agent_of_the_mesh(weft: Weft, agent: str) -> None:
    before = log_of(weft, "counter").count("POST /rpc")
    assert asked(weft, agent, "How many words? [[sim tool=count_words]]")
    assert log_of(weft, "counter").count("POST /rpc") == before + 1


@pytest.mark.parametrize("agent", WITH_TOOLS)
def test_its_model_calls_a_tool_of_an_mcp_server_of_the_mesh(weft: Weft, agent: str) -> None:
    before = log_of(weft, "weather").count("a forecast for")
    assert asked(weft, agent, "What will the weather be? [[sim tool=forecast]]")
    assert log_of(weft, "weather").count("a forecast for") == before + 1


def test_an_agent_in_javascript_answers_and_calls_another(weft: Weft) -> None:
    assert asked(weft, "shouter", "one two three") == "ONE TWO THREE (3 words)"


def log_of(weft: Weft, agent: str) -> str:
    """What an agent has written."""
    return next(Path(weft.directory).rglob(f"logs/{agent}-1.log")).read_text()
