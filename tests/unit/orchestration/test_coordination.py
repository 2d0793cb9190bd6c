"""One task to several: who is asked what, who is waited for, and what becomes of those who are not needed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from pydantic import BaseModel
from tests.unit.orchestration.crew import LIMIT, Crew

from weft import (
    Agent,
    AgentFailed,
    Interrupted,
    InvalidRequest,
    LoopDetected,
    Mesh,
    NoHealthyAgent,
    NoSuchAgent,
    TimedOut,
    current,
)
from weft.orchestration import Branch, BranchResult, Discovered, NoQuorum, Outcome, Partial, Step, coordinate
from weft.testing import InMemoryMesh

NAMES = ("ann", "ben", "cid")


def add_all(mesh: InMemoryMesh, crew: Crew, *names: str, **how: Any) -> None:
    for name in names:
        mesh.add(crew.agent(name, **how))


async def test_all_are_asked_and_answers_come_in_the_order_of_the_branches(
    mesh: InMemoryMesh, crew: Crew
) -> None:
    add_all(mesh, crew, *NAMES)

    outcome = await coordinate("add", NAMES, mesh=mesh.client)

    assert outcome.value == ["ann: add", "ben: add", "cid: add"]
    assert [each.branch.label for each in outcome.results] == list(NAMES)
    assert all(each.ok and each.seconds > 0 for each in outcome.results)
    assert outcome.unneeded == ()
    assert outcome.synthesis is None


async def test_types_capabilities_instances_and_functions_are_asked_alike(
    mesh: InMemoryMesh, crew: Crew
) -> None:
    [ann] = mesh.add(crew.agent("ann"))

    async def here(task: str) -> str:
        return f"here: {task}"

    agents: list[Step] = ["ann", "think.cap", "ann-1.ann", ann, here, len, Branch("ann", name="Ann")]
    outcome = await coordinate("add", agents, mesh=mesh.client)

    assert outcome.value == ["ann: add"] * 4 + ["here: add", 3, "ann: add"]
    labels = ["ann", "think.cap", "ann-1.ann", "ann-1.ann", "here", "len", "Ann"]
    assert [each.branch.label for each in outcome.results] == labels
    assert [each.instance for each in outcome.results] == ["", "", "ann-1.ann", "ann-1.ann", "", "", ""]


async def test_a_task_that_is_a_mapping_or_a_model_is_the_arguments_of_the_request(
    mesh: InMemoryMesh,
) -> None:
    agent = Agent("adder")

    @agent.handles("add")
    async def add(one: int, two: int) -> int:
        return one + two

    class Numbers(BaseModel):
        one: int
        two: int

    mesh.add(agent)

    for task in ({"one": 1, "two": 2}, Numbers(one=1, two=2)):
        assert (await coordinate(task, ["adder"], kind="add", mesh=mesh.client)).value == [3]


async def test_each_branch_has_its_own_prompt_model_and_arguments(mesh: InMemoryMesh) -> None:
    agent = Agent("writer")

    @agent.handles("write")
    async def write(
        text: str,
        prompt: str = "",
        model: str = "",
        temperature: float = -1,
        max_tokens: int = -1,
        tone: str = "",
    ) -> list[object]:
        return [text, prompt, model, temperature, max_tokens, tone]

    mesh.add(agent)
    one = Branch("writer", "write", field="text", prompt="Be short.")
    two = Branch("writer", "write", field="text", model="m", arguments={"tone": "dry"})
    three = Branch("writer", "write", field="text", model="m", temperature=0, max_tokens=9)

    outcome = await coordinate("loom", [one, two, three], mesh=mesh.client)

    assert outcome.value == [
        ["loom", "Be short.", "", -1, -1, ""],
        ["loom", "", "m", 0.7, 2048, "dry"],
        ["loom", "", "m", 0, 9, ""],
    ]


async def test_answers_are_checked_and_converted(mesh: InMemoryMesh, crew: Crew) -> None:
    class Answer(BaseModel):
        number: int

    mesh.add(crew.agent("ann", answer={"number": "7"}))
    mesh.add(crew.agent("ben", answer={"number": "many"}))

    agents = [Branch(name, result_type=Answer) for name in ("ann", "ben")]
    outcome = await coordinate("add", agents, mesh=mesh.client)

    assert outcome.value == [Answer(number=7)]
    [failure] = outcome.failures
    assert failure.branch.label == "ben"
    assert isinstance(failure.error, AgentFailed)


async def test_whom_discovery_finds_is_asked_by_instance_or_by_type(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann"), instances=2)
    mesh.add(crew.agent("ben"))

    everyone = await coordinate("add", Discovered(capability="think"), mesh=mesh.client)
    assert [each.instance for each in everyone.results] == ["ann-1.ann", "ann-2.ann", "ben-1.ben"]
    types = Discovered(capability="think", each="type", like=Branch("-", "words", stream=True))
    by_type = await coordinate("a b", types, mesh=mesh.client)
    assert [each.branch.label for each in by_type.results] == ["ann", "ben"]
    assert by_type.value == [["a", "b"], ["a", "b"]]
    one = await coordinate("add", Discovered(type="ann", limit=1), mesh=mesh.client)
    assert len(one.results) == 1
    with pytest.raises(NoHealthyAgent):
        await coordinate("add", Discovered(type="nobody"), mesh=mesh.client)


async def test_one_failure_is_told_and_the_others_count(mesh: InMemoryMesh, crew: Crew) -> None:
    add_all(mesh, crew, "ann", "cid")
    mesh.add(crew.agent("ben", fails=True))

    outcome = await coordinate("add", [*NAMES, "nobody"], mesh=mesh.client)

    assert outcome.value == outcome.answers == ["ann: add", "cid: add"]
    assert [each.index for each in outcome.failures] == [1, 3]
    assert [type(each.error) for each in outcome.failures] == [AgentFailed, NoSuchAgent]
    assert str(outcome.failures[0].error) == "ben cannot"


async def test_if_all_fail_there_is_no_quorum_and_the_error_says_why(mesh: InMemoryMesh, crew: Crew) -> None:
    add_all(mesh, crew, *NAMES, fails=True)

    with pytest.raises(
        NoQuorum, match=r"1 of 3 branches had to succeed, and 3 failed .*ann: ann cannot"
    ) as caught:
        await coordinate("add", NAMES, mesh=mesh.client)

    assert [each.branch.label for each in caught.value.results] == list(NAMES)


async def test_a_circle_of_agents_is_told_as_such(mesh: InMemoryMesh) -> None:
    def circle(_: str) -> None:
        raise LoopDetected("ann, ben, ann")

    with pytest.raises(LoopDetected, match="ann, ben, ann"):
        await coordinate("add", [circle, circle], mesh=mesh.client)
    with pytest.raises(NoQuorum, match="ann, ben, ann"):
        await coordinate("add", [circle, "nobody"], mesh=mesh.client)


async def test_with_fail_the_first_error_ends_it_and_the_others_are_cancelled(
    mesh: InMemoryMesh, crew: Crew
) -> None:
    add_all(mesh, crew, "ann", "cid")
    mesh.add(crew.agent("ben", fails=True))
    for name in NAMES:
        crew.gate(name)

    run = asyncio.create_task(coordinate("add", NAMES, mesh=mesh.client, on_failure="fail"))
    await crew.until(lambda: len(crew.asked) == 3)
    crew.gate("ben").set()

    with pytest.raises(AgentFailed, match="ben cannot") as caught:
        await run
    assert "branch 'ben' failed" in caught.value.__notes__[0]
    assert sorted(crew.cancelled) == ["ann", "cid"]


@pytest.mark.parametrize("quorum", [2, 0.5, 0.6])
async def test_a_quorum_that_is_reached_ends_it_and_cancels_the_rest(
    mesh: InMemoryMesh, crew: Crew, quorum: float
) -> None:
    add_all(mesh, crew, *NAMES)
    crew.gate("ann")

    outcome = await coordinate("add", NAMES, mesh=mesh.client, quorum=quorum)

    assert outcome.value == ["ben: add", "cid: add"]
    assert [each.label for each in outcome.unneeded] == ["ann"]
    assert crew.cancelled == ["ann"]


async def test_a_quorum_out_of_reach_ends_it_at_once(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann"))
    add_all(mesh, crew, "ben", "cid", fails=True)
    crew.gate("ann")

    with pytest.raises(NoQuorum, match="2 of 3 branches had to succeed, and 2 failed"):
        await coordinate("add", NAMES, mesh=mesh.client, quorum=2)

    assert crew.cancelled in (["ann"], []), "it is cancelled, unless it had not begun"


@pytest.mark.parametrize("quorum", [0, 4, -1, 0.0, 1.5])
async def test_a_quorum_that_cannot_be_is_refused(mesh: InMemoryMesh, quorum: float) -> None:
    with pytest.raises(InvalidRequest, match="quorum"):
        await coordinate("add", NAMES, mesh=mesh.client, quorum=quorum)


async def test_a_branch_that_takes_too_long_fails_and_its_agent_is_told_the_deadline(
    mesh: InMemoryMesh, crew: Crew
) -> None:
    add_all(mesh, crew, "ann", "ben")
    crew.gate("ann")

    outcome = await coordinate("add", [Branch("ann", timeout=1.5), "ben"], mesh=mesh.client)

    assert outcome.value == ["ben: add"]
    [late] = outcome.failures
    assert isinstance(late.error, TimedOut)
    assert crew.cancelled == ["ann"]
    deadlines = {name: context.deadline for (name, _), context in zip(crew.asked, crew.contexts, strict=True)}
    assert deadlines["ann"] is not None
    assert deadlines["ben"] is not None
    assert deadlines["ben"] - deadlines["ann"] > 50


async def test_at_the_deadline_of_all_it_ends_with_timed_out(mesh: InMemoryMesh, crew: Crew) -> None:
    add_all(mesh, crew, "ann", "ben")
    crew.gate("ann")

    with pytest.raises(TimedOut):
        await coordinate("add", ["ann", "ben"], mesh=mesh.client, timeout=1.5)

    await crew.until(lambda: crew.cancelled == ["ann"])


async def test_the_deadline_of_the_call_being_handled_holds_for_all_branches(
    mesh: InMemoryMesh, crew: Crew
) -> None:
    boss = Agent("boss")

    @boss.handles("task")
    async def work(task: str, mesh: Mesh) -> list[float | None]:
        await coordinate(task, ["ann"], mesh=mesh, timeout=3600, branch_timeout=3600)
        return [current().deadline]

    mesh.add(boss)
    mesh.add(crew.agent("ann"))

    [deadline] = (await coordinate("add", ["boss"], mesh=mesh.client, timeout=100)).value[0]

    [context] = crew.contexts
    assert context.deadline == deadline


async def test_cancelling_it_cancels_every_branch(mesh: InMemoryMesh, crew: Crew) -> None:
    add_all(mesh, crew, *NAMES)
    for name in NAMES:
        crew.gate(name)

    run = asyncio.create_task(coordinate("add", NAMES, mesh=mesh.client))
    await crew.until(lambda: len(crew.asked) == 3)
    run.cancel()

    with pytest.raises(asyncio.CancelledError):
        await run
    await crew.until(lambda: sorted(crew.cancelled) == list(NAMES))


async def test_an_orchestration_within_an_orchestration_is_cancelled_with_it(
    mesh: InMemoryMesh, crew: Crew
) -> None:
    boss = Agent("boss")

    @boss.handles("task")
    async def work(task: str, mesh: Mesh) -> list[Any]:
        return list((await coordinate(task, ["ann", "ben"], mesh=mesh)).value)

    mesh.add(boss)
    add_all(mesh, crew, "ann", "ben")

    assert (await coordinate("add", ["boss"], mesh=mesh.client)).value == [["ann: add", "ben: add"]]
    crew.gate("ann")
    crew.gate("ben")
    run = asyncio.create_task(coordinate("add", ["boss", lambda task: task], mesh=mesh.client))
    await crew.until(lambda: len(crew.asked) == 4)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await crew.until(lambda: sorted(crew.cancelled) == ["ann", "ben"])


async def test_all_calls_of_one_orchestration_are_one_trace(mesh: InMemoryMesh, crew: Crew) -> None:
    add_all(mesh, crew, *NAMES)

    await coordinate("add", NAMES, mesh=mesh.client, synthesis="ann")
    await coordinate("add", NAMES, mesh=mesh.client)

    traces = [each.trace for each in crew.contexts]
    assert len(set(traces[:4])) == 1
    assert len(set(traces)) == 2


async def test_budgets_are_passed_on_the_shared_one_first(mesh: InMemoryMesh, crew: Crew) -> None:
    add_all(mesh, crew, "ann", "ben")

    agents: list[Step] = [Branch("ann", budget="100 tokens"), "ben"]
    await coordinate("add", agents, mesh=mesh.client, budget="5000 tokens, 0.5 usd")

    budgets = {name: each.budget or "" for (name, _), each in zip(crew.asked, crew.contexts, strict=True)}
    shared = budgets["ben"]
    tokens, usd = shared.split(", ")
    assert tokens.startswith("5000 tokens;id=")
    assert usd.startswith("0.5 usd;id=")
    assert budgets["ann"].startswith(f"{shared}, 100 tokens;id=")
    assert len({part.partition(";id=")[2] for part in budgets["ann"].split(", ")}) == 2


async def test_a_fallback_answers_for_a_branch_that_fails(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann", fails=True))
    mesh.add(crew.agent("ben"))

    outcome = await coordinate(
        "add",
        [
            Branch("ann", fallback="ben"),
            Branch("ann", fallback=Branch("nobody", fallback=lambda _: "nothing")),
        ],
        mesh=mesh.client,
    )

    assert outcome.value == ["ben: add", "nothing"]
    assert [each.branch.label for each in outcome.results] == ["ann", "ann"]
    assert [str(each.replaced) for each in outcome.results] == ["ann cannot", "ann cannot"]


async def test_a_fallback_that_fails_too_is_the_error_that_is_told(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann", fails=True))

    with pytest.raises(NoQuorum) as caught:
        await coordinate("add", [Branch("ann", fallback="nobody")], mesh=mesh.client)

    [result] = caught.value.results
    assert isinstance(result.error, NoSuchAgent)
    assert isinstance(result.replaced, AgentFailed)


async def test_a_function_makes_one_answer_of_all(mesh: InMemoryMesh, crew: Crew) -> None:
    add_all(mesh, crew, "ann", "ben")

    async def merge(results: Sequence[BranchResult]) -> dict[str, Any]:
        return {each.branch.label: each.value for each in results}

    outcome = await coordinate("add", ["ann", "nobody", "ben"], mesh=mesh.client, synthesis=merge)

    assert outcome.value == {"ann": "ann: add", "ben": "ben: add"}
    assert outcome.synthesis is not None
    assert outcome.synthesis.index == 3


async def test_an_agent_makes_one_answer_of_all(mesh: InMemoryMesh, crew: Crew) -> None:
    editor = Agent("editor")

    @editor.handles("synthesize")
    async def merge(task: str, answers: list[dict[str, str]]) -> str:
        return f"{task}: {answers}"

    mesh.add(editor)
    mesh.add(crew.agent("ann"))

    outcome = await coordinate("add", ["ann"], mesh=mesh.client, synthesis="editor")

    assert outcome.value == "add: [{'from': 'ann', 'answer': 'ann: add'}]"


async def test_the_error_of_a_synthesis_is_raised_unless_it_has_a_fallback(
    mesh: InMemoryMesh, crew: Crew
) -> None:
    mesh.add(crew.agent("ann"))

    with pytest.raises(NoSuchAgent, match="nobody") as caught:
        await coordinate("add", ["ann"], mesh=mesh.client, synthesis="nobody")
    assert "'nobody' failed, on which the rest depends" in caught.value.__notes__[0]

    merged = Branch("nobody", fallback=lambda told: told["answers"][0]["answer"])
    outcome = await coordinate("add", ["ann"], mesh=mesh.client, synthesis=merged)
    assert outcome.value == "ann: add"


async def test_a_bug_in_a_function_is_raised_and_cancels_the_rest(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann"))
    crew.gate("ann")

    async def buggy(task: str) -> None:
        await crew.until(lambda: crew.asked)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await coordinate("add", ["ann", buggy], mesh=mesh.client)

    assert crew.cancelled == ["ann"]


async def test_a_function_whose_work_is_cancelled_from_elsewhere_has_failed(mesh: InMemoryMesh) -> None:
    async def gone(_: str) -> None:
        waited = asyncio.ensure_future(asyncio.Event().wait())
        waited.cancel()
        await waited

    async with asyncio.timeout(LIMIT):
        outcome = await coordinate("add", [gone, len], mesh=mesh.client)

    assert outcome.value == [3]
    assert isinstance(outcome.failures[0].error, Interrupted)


async def test_no_more_branches_are_at_work_than_may_be(mesh: InMemoryMesh) -> None:
    at_work = most = 0

    async def work(_: str) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        return 1

    outcome = await coordinate("add", [work] * 20, mesh=mesh.client, concurrency=3)

    assert len(outcome.answers) == 20
    assert most == 3


async def test_results_are_streamed_in_the_order_in_which_they_come(mesh: InMemoryMesh, crew: Crew) -> None:
    add_all(mesh, crew, *NAMES)
    for name in NAMES:
        crew.gate(name)
    order = ["ben", "cid", "ann"]
    crew.gate(order[0]).set()
    told: list[str] = []

    async with aclosing(coordinate.stream("add", NAMES, mesh=mesh.client)) as news:
        async for each in news:
            if isinstance(each, BranchResult):
                told.append(each.branch.label)
                if len(told) < len(order):
                    crew.gate(order[len(told)]).set()
            else:
                assert isinstance(each, Outcome)
                assert each.value == [f"{name}: add" for name in NAMES]

    assert told == order


async def test_what_a_branch_streams_is_told_before_its_result(mesh: InMemoryMesh, crew: Crew) -> None:
    mesh.add(crew.agent("ann"))
    crew.gate("ann")
    told: list[Any] = []

    branch = Branch("ann", "words", stream=True)
    async with aclosing(coordinate.stream("one two", [branch], mesh=mesh.client)) as news:
        async for each in news:
            told.append(each)
            if len(told) == 2:
                crew.gate("ann").set()

    first, second, result, outcome = told
    assert [first, second] == [Partial(branch, 0, "one"), Partial(branch, 0, "two")]
    assert result.value == ["one", "two"]
    assert outcome.value == [["one", "two"]]


async def test_a_stream_that_is_closed_cancels_what_is_under_way(mesh: InMemoryMesh, crew: Crew) -> None:
    add_all(mesh, crew, "ann", "ben")
    crew.gate("ann")

    async with aclosing(coordinate.stream("add", ["ann", "ben"], mesh=mesh.client)) as news:
        assert isinstance(await anext(news), BranchResult)
        await crew.until(lambda: len(crew.asked) == 2)

    assert crew.cancelled == ["ann"]


async def test_a_stream_without_a_reader_holds_up_its_branch(mesh: InMemoryMesh) -> None:
    agent = Agent("endless")
    given = 0

    @agent.streams("task")
    async def count(task: str):  # type: ignore[no-untyped-def]
        nonlocal given
        while True:
            given += 1
            yield given

    mesh.add(agent)
    stream = coordinate.stream("go", [Branch("endless", stream=True)], mesh=mesh.client)
    async with aclosing(stream) as news:
        await anext(news)
        before = -1
        async with asyncio.timeout(LIMIT):
            while before != given:
                before = given
                for _ in range(200):
                    await asyncio.sleep(0)
        assert given < 1000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Branch, "names none"),
        (lambda: Branch("ann", queue="work"), "not both"),
        (lambda: Branch("ann", timeout=0), "more than 0 seconds"),
        (lambda: Branch("ann", weight=0), "more than 0"),
        (lambda: Branch("ann", budget="much"), "x-weft-budget must be"),
        (lambda: Branch("ann", budget="5 tokens;id=x"), "no id of its own"),
    ],
)
def test_a_branch_that_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        make()


@pytest.mark.parametrize(
    ("agents", "arguments", "message"),
    [
        ("ann", {}, "as a list"),
        (["ann"], {"timeout": 0}, "timeout"),
        (["ann"], {"branch_timeout": -1}, "timeout"),
        (["ann"], {"budget": "x"}, "budget"),
        (["ann"], {"concurrency": 0}, "1 or more"),
        (["ann"], {"on_failure": "explode"}, "'continue' or 'fail'"),
        (Discovered(each="planet"), {}, "planet"),
    ],
)
async def test_what_makes_no_sense_is_refused_at_once(
    mesh: InMemoryMesh, agents: Any, arguments: Any, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        await coordinate("add", agents, mesh=mesh.client, **arguments)
