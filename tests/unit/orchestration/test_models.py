"""Models as branches, over the mesh's transport, against simulated ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import pytest
from pydantic import BaseModel

from weft import AgentFailed, Interrupted, InvalidRequest, Mesh, RateLimited, TimedOut, Unavailable
from weft.orchestration import Branch, BranchResult, Option, Outcome, Partial, coordinate, models, route, vote
from weft.orchestration.answers import from_text
from weft.orchestration.synthesis import PROMPT
from weft.sdk.problem import read_error
from weft.sdk.transport import Answer, Call, HttpTransport
from weft.testing import SimulatedLLM

MODEL = Branch(model="sim", prompt="Be brief.")


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedLLM]:
    with SimulatedLLM(first_token="0ms", tokens_per_second=0, answer_tokens=6, record=20) as llm:
        yield llm


@pytest.fixture
async def mesh(provider: SimulatedLLM) -> AsyncIterator[Mesh]:
    """A mesh in which there are only models: a provider looks like `llm.mesh` to who asks it."""
    provider.reset()
    async with Mesh(proxy=provider.url.removesuffix("/v1")) as mesh:
        yield mesh


def bodies(provider: SimulatedLLM) -> list[dict[str, Any]]:
    return [json.loads(each["body"]) for each in provider.requests()]


async def test_a_model_gets_its_prompt_and_the_task_and_its_text_is_the_answer(
    mesh: Mesh, provider: SimulatedLLM
) -> None:
    outcome = await coordinate("What is a loom?", [MODEL], mesh=mesh, budget="500 tokens")

    [answer] = outcome.value
    assert isinstance(answer, str)
    assert answer
    [request], [body] = provider.requests(), bodies(provider)
    assert request["path"] == "/v1/chat/completions"
    assert body == {
        "model": "sim",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is a loom?"},
        ],
        "temperature": 0.7,
        "max_tokens": 2048,
    }
    headers = {name.lower(): value for name, value in dict(request["headers"]).items()}
    assert headers["x-weft-budget"].startswith("500 tokens;id=")
    assert {"traceparent", "x-weft-deadline"} <= set(headers)
    assert headers["host"] == models.HOST


async def test_fields_of_the_request_can_be_set_and_left_out(mesh: Mesh, provider: SimulatedLLM) -> None:
    branch = Branch(model="sim", arguments={"max_tokens": None, "max_completion_tokens": 9, "seed": 1})
    await coordinate({"files": ["a.py"]}, [branch], mesh=mesh)
    [body] = bodies(provider)
    assert "max_tokens" not in body
    assert (body["max_completion_tokens"], body["seed"]) == (9, 1)
    assert body["messages"] == [{"role": "user", "content": '{\n "files": [\n  "a.py"\n ]\n}'}]


async def test_a_model_s_words_are_told_as_they_come(mesh: Mesh) -> None:
    branch = Branch(model="sim", stream=True)
    pieces: list[str] = []
    async with aclosing(coordinate.stream("Hello", [branch], mesh=mesh)) as news:
        async for each in news:
            match each:
                case Partial():
                    pieces.append(each.data)
                case BranchResult():
                    assert each.value == "".join(pieces)
                case Outcome():
                    assert each.value == ["".join(pieces)]
    assert len(pieces) > 2


async def test_a_model_makes_one_answer_of_all(mesh: Mesh, provider: SimulatedLLM) -> None:
    agents = [Branch(str.upper, name="loud"), Branch(lambda _: {"n": 1}, name="exact")]
    outcome = await coordinate("say it", agents, mesh=mesh, synthesis=Branch(model="sim"))
    assert isinstance(outcome.value, str)
    [body] = bodies(provider)
    assert body["messages"][0] == {"role": "system", "content": PROMPT}
    told = body["messages"][1]["content"]
    assert (
        told
        == '# The task\n\nsay it\n\n# The answer of loud\n\nSAY IT\n\n# The answer of exact\n\n{\n "n": 1\n}'
    )


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        ({"x-sim-fail": "429"}, RateLimited),
        ({"x-sim-fail": "503"}, Unavailable),
        ({"x-sim-fail": "504"}, TimedOut),
        ({"x-sim-fail": "500"}, AgentFailed),
        ({"x-sim-fail": "400"}, AgentFailed),
    ],
)
async def test_a_model_that_refuses_is_a_branch_that_fails_and_says_why(
    provider: SimulatedLLM, failing: dict[str, str], error: type[Exception]
) -> None:
    async with Mesh(transport=_With(provider, failing)) as mesh:
        for branch in (MODEL, Branch(model="sim", stream=True)):
            outcome = await coordinate("Hello", [branch, len], mesh=mesh)
            [failure] = outcome.failures
            assert type(failure.error) is error
            assert "llm.mesh answered" not in str(failure.error), "the provider's own words"


async def test_a_stream_that_breaks_off_is_a_branch_that_fails(mesh: Mesh, provider: SimulatedLLM) -> None:
    branch = Branch(model="sim", stream=True)
    outcome = await coordinate("[[sim break-after=3]] Hello", [branch, len], mesh=mesh)
    assert isinstance(outcome.failures[0].error, Interrupted | AgentFailed)


async def test_a_model_that_is_slow_is_given_up(mesh: Mesh) -> None:
    slow = Branch(model="sim", timeout=0.3)
    outcome = await coordinate("[[sim first-token=60s]] Hello", [slow, len], mesh=mesh)
    assert isinstance(outcome.failures[0].error, TimedOut)


class Point(BaseModel):
    x: int


@pytest.mark.parametrize("text", ['{"x": 1}', 'Sure:\n```json\n{"x": 1}\n```', '```\n{"x": "1"}\n```'])
def test_a_model_s_json_is_checked_and_converted(text: str) -> None:
    assert from_text(Branch(model="sim", result_type=Point), text) == Point(x=1)


async def test_a_model_that_answers_no_json_where_some_is_wanted_has_failed(mesh: Mesh) -> None:
    outcome = await coordinate("Hello", [Branch(model="sim", result_type=Point), len], mesh=mesh)
    assert "sim answered something unexpected" in str(outcome.failures[0].error)


async def test_a_model_that_chooses_is_told_the_options_and_asked_again(
    mesh: Mesh, provider: SimulatedLLM
) -> None:
    options = [Option(str.upper, description="shouts"), Option(str.lower, description="whispers")]
    with pytest.raises(AgentFailed, match="none of the options: upper, lower"):
        await route("Hello", options, mesh=mesh, chooser=Branch(model="sim"))
    first, second = (body["messages"][1]["content"] for body in bodies(provider))
    assert first == "# The options\n\n- upper: shouts\n- lower: whispers\n\n# The task\n\nHello"
    assert second.startswith(first + "\n\n# Again\n\nYou answered ")


async def test_a_model_that_votes_is_told_the_choices(mesh: Mesh, provider: SimulatedLLM) -> None:
    await vote("ok?", [MODEL, lambda _: "yes"], mesh=mesh, choices=["yes", "no"], rule="plurality", quorum=2)
    [body] = bodies(provider)
    assert body["messages"][0]["content"] == (
        "Be brief.\n\nAnswer with exactly one of these, and nothing else: yes, no."
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b'{"choices": {}}',
        b'{"choices": [7]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": ["x"]}}]}',
        b'{"choices": []}',
        b'{"error": "no"}',
    ],
)
async def test_what_is_no_completion_is_a_failure(body: bytes) -> None:
    async with Mesh(transport=_Says(body)) as mesh:
        outcome = await coordinate("Hello", [MODEL, len], mesh=mesh)
    assert isinstance(outcome.failures[0].error, AgentFailed)


async def test_what_cannot_be_written_as_json_is_refused(mesh: Mesh) -> None:
    outcome = await coordinate(object(), [MODEL, lambda _: 1], mesh=mesh)
    assert isinstance(outcome.failures[0].error, InvalidRequest)


def test_the_words_of_an_error_in_openai_s_format_are_told() -> None:
    body = b'{"error": {"message": "budget tests is spent", "code": "budget_exceeded"}}'
    assert str(read_error("llm.mesh", 429, {}, body)) == "budget tests is spent"


class _With:
    """The way to a provider, with headers by which it behaves in some way."""

    def __init__(self, provider: SimulatedLLM, headers: dict[str, str]) -> None:
        self._inner = HttpTransport(provider.url.removesuffix("/v1"))
        self._headers = headers

    def exchange(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        return self._inner.exchange(
            Call(call.method, call.host, call.target, {**call.headers, **self._headers}, call.body)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Says:
    """A way to a provider that answers the same whatever it is asked."""

    status = 200
    headers = {"content-type": "application/json"}

    def __init__(self, body: bytes) -> None:
        self._body = body

    def exchange(self, _: Call) -> AbstractAsyncContextManager[Answer]:
        return self

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def chunks(self):  # type: ignore[no-untyped-def]
        yield self._body

    async def aclose(self) -> None: ...
