"""Several are asked the same, and what most say counts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.orchestration.crew import Crew

from weft import Agent, AgentFailed, NoHealthyAgent
from weft.orchestration import Branch, Discovered, NoQuorum, Step, Undecided, vote
from weft.testing import InMemoryMesh


def says(answer: Any, *, weight: float = 1, name: str = "") -> Branch:
    """A voter."""
    return Branch(lambda _: answer, weight=weight, name=name or str(answer))


async def test_what_most_say_wins_and_the_votes_are_told(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann", answer="Yes"))
    mesh.add(crew.agent("ben", answer="no"))
    mesh.add(crew.agent("cid", answer="yes."))

    verdict = await vote("ship it?", ["ann", "ben", "cid"], mesh=mesh.client, choices=["yes", "no"])

    assert verdict.value == "yes"
    assert {each.choice: sorted(each.voters) for each in verdict.counts}["yes"] == ["ann", "cid"]
    assert verdict.tied == ()


async def test_weights_count(mesh: InMemoryMesh) -> None:
    voters = [says("a"), says("a"), says("b", weight=3)]
    verdict = await vote("which?", voters, mesh=mesh.client)
    assert verdict.value == "b"
    assert [(each.choice, each.weight) for each in verdict.counts] == [("b", 3), ("a", 2)]


async def test_once_it_is_decided_nobody_else_is_waited_for(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann", answer="yes"), instances=2)
    mesh.add(crew.agent("slow"))
    crew.gate("slow")

    verdict = await vote("ship it?", ["ann", "ann", "slow"], mesh=mesh.client)

    assert verdict.value == "yes"
    assert [each.label for each in verdict.unneeded] == ["slow"]
    assert crew.cancelled in (["slow"], []), "it is cancelled, unless it had not begun"


async def test_with_a_quorum_so_many_are_waited_for_though_it_is_decided(mesh: InMemoryMesh) -> None:
    verdict = await vote("which?", [says("a", weight=9), says("b"), says("c")], mesh=mesh.client, quorum=1.0)
    assert (verdict.value, len(verdict.results)) == ("a", 3)
    with pytest.raises(NoQuorum):
        await vote("which?", [says("a", weight=9), "nobody"], mesh=mesh.client, quorum=2)


async def test_a_tie_is_undecided_or_decided_by_somebody(mesh: InMemoryMesh) -> None:
    voters = [says("a"), says("b"), says("c"), says("a"), says("b")]
    with pytest.raises(Undecided, match=r"no choice has won by plurality: a 2, b 2, c 1") as caught:
        await vote("which?", voters, mesh=mesh.client, rule="plurality")
    assert len(caught.value.results) == 5

    first = await vote("which?", voters, mesh=mesh.client, rule="plurality", tie=lambda tied: tied[0])
    assert (first.value, first.tied) == ("a", ("a", "b"))

    judge = Agent("judge")

    @judge.handles("decide")
    async def decide(question: str, choices: list[str]) -> str:
        return choices[-1].upper()

    mesh.add(judge)
    judged = await vote("which?", voters, mesh=mesh.client, rule="plurality", tie="judge")
    assert judged.value == "b"
    with pytest.raises(AgentFailed, match="decided a tie by 'c', which is none of a, b"):
        await vote("which?", voters, mesh=mesh.client, rule="plurality", tie=lambda _: "c")


async def test_a_unanimous_vote_needs_everybody_and_ends_with_the_first_who_differs(
    mesh: InMemoryMesh, crew: Crew
) -> None:
    assert (await vote("ok?", [says("y"), says("Y")], mesh=mesh.client, rule="unanimous")).value == "y"
    mesh.add(crew.agent("slow"))
    crew.gate("slow")
    with pytest.raises(Undecided):
        await vote("ok?", [says("y"), says("n"), "slow"], mesh=mesh.client, rule="unanimous")
    with pytest.raises(Undecided):
        await vote("ok?", [says("y"), "nobody"], mesh=mesh.client, rule="unanimous")


async def test_spoiled_votes_and_failing_voters_are_told(mesh: InMemoryMesh) -> None:
    voters: list[Step] = [says("yes"), says("yes"), says("yes"), says("well ..."), "nobody"]
    verdict = await vote("ok?", voters, mesh=mesh.client, choices=["yes", "no"], rule="plurality", quorum=4)
    assert verdict.value == "yes"
    assert [each.value for each in verdict.spoiled] in ([], ["well ..."])
    with pytest.raises(Undecided, match="no votes"):
        await vote("ok?", [says("maybe")], mesh=mesh.client, choices=["yes", "no"], tie=lambda _: "yes")


async def test_the_choice_can_be_read_from_an_answer(mesh: InMemoryMesh) -> None:
    voters = [says({"verdict": "good", "why": number}, name=str(number)) for number in range(3)]
    verdict = await vote("?", voters, mesh=mesh.client, ballot=lambda answer: answer["verdict"])
    assert verdict.value == "good"


async def test_whoever_is_discovered_votes(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann", answer=True), instances=3)
    verdict = await vote("ok?", Discovered(capability="think"), mesh=mesh.client, quorum=3)
    assert (verdict.value, verdict.counts[0].weight) == (True, 3)
    with pytest.raises(NoHealthyAgent):
        await vote("ok?", Discovered(type="nobody"), mesh=mesh.client)
