"""One of several does it: by rule, by choice, or because nobody else does."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.orchestration.crew import Crew

from weft import Agent, AgentFailed, InvalidRequest, NoSuchAgent, NotFound
from weft.orchestration import Branch, Option, route
from weft.testing import InMemoryMesh

DESCRIBED = (Option("ann", description="adds"), Option("ben", description="subtracts", name="Minus"))


@pytest.fixture
async def mesh(mesh: InMemoryMesh, crew: Crew) -> InMemoryMesh:
    """One with ann and ben in it."""
    mesh.add(crew.agent("ann"))
    mesh.add(crew.agent("ben"))
    return mesh


async def short(task: str) -> bool:
    return len(task) < 4


async def test_the_first_whose_rule_fits_does_it(mesh: InMemoryMesh) -> None:
    options = [
        Option("nobody", when=lambda task: task == ""),
        Option("ann", when=short),
        Option("ben", when=lambda _: True),
        Option("nobody", name="never"),
    ]
    first = await route("add", options, mesh=mesh.client)
    assert (first.value, first.option, first.why) == ("ann: add", "ann", "rule")
    second = await route("multiply", options, mesh=mesh.client)
    assert (second.value, second.option) == ("ben: multiply", "ben")


async def test_without_a_chooser_it_is_the_first_without_a_rule_or_otherwise(mesh: InMemoryMesh) -> None:
    never = Option("nobody", when=lambda _: False)
    default = await route("add", [never, Option("ann"), Option("ben")], mesh=mesh.client)
    assert (default.option, default.why) == ("ann", "default")
    other = await route("add", [never], mesh=mesh.client, otherwise="ben")
    assert (other.option, other.why, other.value) == ("ben", "otherwise", "ben: add")
    with pytest.raises(NotFound, match="no option's rule fits"):
        await route("add", [never], mesh=mesh.client)


@pytest.mark.parametrize("answer", ["Minus", "minus", ' "Minus".\n', "**Minus**"])
async def test_who_is_chosen_by_name_does_it(mesh: InMemoryMesh, answer: str) -> None:
    told: list[Any] = []

    def choose(asked: Any) -> str:
        told.append(asked)
        return answer

    done = await route("add", DESCRIBED, mesh=mesh.client, chooser=choose)

    assert (done.option, done.why, done.value) == ("Minus", "chosen", "ben: add")
    assert told == [{"task": "add", "options": {"ann": "adds", "Minus": "subtracts"}}]


async def test_an_agent_can_choose(mesh: InMemoryMesh) -> None:
    chooser = Agent("chooser")

    @chooser.handles("choose")
    async def choose(task: str, options: dict[str, str]) -> str:
        return min(options, key=lambda name: len(options[name]))

    mesh.add(chooser)
    assert (await route("add", DESCRIBED, mesh=mesh.client, chooser="chooser")).option == "ann"


@pytest.mark.parametrize("answers", [["perhaps ann", "ann"], [7, "Ann"]])
async def test_a_wrong_choice_is_asked_for_once_more(mesh: InMemoryMesh, answers: list[Any]) -> None:
    left = list(answers)
    done = await route("add", DESCRIBED, mesh=mesh.client, chooser=lambda _: left.pop(0))
    assert done.option == "ann"
    assert left == []


async def test_a_choice_that_stays_wrong_is_an_error_unless_there_is_an_otherwise(mesh: InMemoryMesh) -> None:
    with pytest.raises(AgentFailed, match=r"chose 'zoe', which is none of the options: ann, Minus"):
        await route("add", DESCRIBED, mesh=mesh.client, chooser=lambda _: "zoe")
    done = await route("add", DESCRIBED, mesh=mesh.client, chooser=lambda _: "zoe", otherwise="ann")
    assert (done.option, done.why) == ("ann", "otherwise")


async def test_a_chooser_that_fails_is_an_error_unless_there_is_an_otherwise(mesh: InMemoryMesh) -> None:
    with pytest.raises(NoSuchAgent):
        await route("add", DESCRIBED, mesh=mesh.client, chooser="nobody")
    done = await route("add", DESCRIBED, mesh=mesh.client, chooser="nobody", otherwise="ben")
    assert done.value == "ben: add"


async def test_who_does_it_may_fail_and_otherwise_is_not_for_that(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("cid", fails=True))
    with pytest.raises(AgentFailed, match="cid cannot"):
        await route("add", [Option("cid")], mesh=mesh.client, otherwise="ann")
    done = await route("add", [Option(Branch("cid", fallback="ann"))], mesh=mesh.client)
    assert done.value == "ann: add"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([Option("ann"), Option(Branch("ann", "words"))], "several options are called ann"),
        ([Option("ann", description="adds"), Option("ben")], "nobody can choose ben without a description"),
    ],
)
async def test_options_that_nobody_can_tell_apart_are_refused(
    mesh: InMemoryMesh, options: list[Option], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        await route("add", options, mesh=mesh.client, chooser=lambda _: "ann")
