"""The parts of the simulated provider that need no socket."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from weft.errors import InvalidRequest
from weft.llm_sim.arguments import argument_parser, parse_arguments
from weft.llm_sim.ask import Endpoint, read_ask
from weft.llm_sim.behaviour import Behaviour, changed
from weft.llm_sim.failures import ApiError
from weft.llm_sim.limits import Limit, Limits, go_duration
from weft.llm_sim.plan import Chance, Fate, plan
from weft.llm_sim.prefixes import BLOCK_TOKENS, PrefixCache
from weft.llm_sim.tokens import count, pieces
from weft.llm_sim.wishes import NO_WISHES, wishes
from weft.llm_sim.words import OPENING, answer, sample

MINUTE = 60_000


def body(**members: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], **members}).encode()


def test_no_sixty_seconds_hold_more_than_the_limits_and_none_is_refused_that_fits() -> None:
    behaviour = Behaviour(requests_per_minute=20, tokens_per_minute=1000)
    draw, limits, now, let_in = random.Random(7), Limits(), 0, list[tuple[int, int]]()
    for _ in range(3000):
        now += draw.choice((0, 1, 50, 900, 5000))
        tokens = draw.randint(0, 120)
        window = [each for each in let_in if each[0] > now - MINUTE]
        used = sum(each[1] for each in window)
        fits = len(window) < 20 and used + tokens <= 1000
        exceeded = limits.enter(behaviour, tokens, now)
        assert (exceeded is None) == fits
        if exceeded is None:
            let_in.append((now, tokens))
        else:
            later = now + exceeded.retry_after_ms
            left = [each for each in window if each[0] > later - MINUTE]
            assert len(left) < 20
            assert sum(each[1] for each in left) + tokens <= 1000
    assert limits.window.most_requests <= 20
    assert limits.window.most_tokens <= 1000


def test_what_runs_at_once_is_limited_until_it_has_ended() -> None:
    behaviour, limits = Behaviour(concurrency=2), Limits()
    assert [limits.enter(behaviour, 0, 0) for _ in range(2)] == [None, None]
    refused = limits.enter(behaviour, 0, MINUTE * 2)
    assert refused is not None
    assert (refused.limit, refused.present) == (Limit.CONCURRENCY, 2)
    limits.leave()
    assert limits.enter(behaviour, 0, MINUTE * 2) is None
    assert limits.most_in_flight == 2


def test_headers_say_how_much_is_left_and_when_all_of_it_is_again() -> None:
    behaviour, limits = Behaviour(requests_per_minute=3, tokens_per_minute=100), Limits()
    limits.enter(behaviour, 40, 0)
    limits.enter(behaviour, 10, 1500)
    headers = dict(limits.headers(behaviour, 31_500))
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-remaining-tokens"] == "50"
    assert headers["x-ratelimit-reset-tokens"] == "30s"
    assert dict(limits.headers(behaviour, 61_000))["x-ratelimit-remaining-tokens"] == "90"
    assert limits.headers(Behaviour(), 0) == ()
    assert [go_duration(each) for each in (0, 20, 1500, 90_000)] == ["0s", "20ms", "1.5s", "1m30s"]


@pytest.mark.parametrize("tokens", [1, 5, 6, 40, 5000])
def test_an_answer_has_exactly_the_tokens_it_is_to_have(tokens: int) -> None:
    text = answer(tokens, 12_345)
    assert count(text) == tokens == len(pieces(text))
    assert "".join(pieces(text)) == text
    assert text.startswith(OPENING[: len(text)])


def test_chance_is_the_same_for_the_same_seed_and_requests() -> None:
    behaviour = Behaviour(failure_rate=0.3, break_rate=0.3)

    def fates(seed: int) -> list[Fate]:
        chance = Chance(seed)
        digest = chance.digest(b"the same request, again and again")
        return [plan(behaviour, None, NO_WISHES, chance.draw(digest)).fate for _ in range(400)]

    assert fates(1) == fates(1) != fates(2)
    assert 80 < fates(1).count(Fate.FAILURE) < 160


def test_only_whole_blocks_of_a_prompt_that_begin_alike_are_cached() -> None:
    cache, prompt = PrefixCache(), "x" * 1000
    assert cache.visit("m", prompt) == 0
    assert cache.visit("m", prompt) == 3 * BLOCK_TOKENS
    assert cache.visit("m", prompt[:600] + "another end" * 50) == 2 * BLOCK_TOKENS
    assert cache.visit("m", "y" + prompt) == 0
    assert cache.visit("another", prompt) == 0


def test_a_tool_is_called_with_what_its_schema_demands() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"enum": ["c", "f"]},
            "days": {"type": "integer", "minimum": 3},
            "places": {"type": "array", "items": {"anyOf": [{"type": "boolean"}]}},
        },
        "required": ["city", "unit", "days", "places"],
    }
    assert sample(schema) == {"city": "simulated", "unit": "c", "days": 3, "places": [True]}


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"model": "m", "messages": NaN}', None),
        (body(model=None), "model"),
        (body(model="m" * 300), "model"),
        (body(messages=[]), "messages"),
        (body(messages=["hello"]), "messages"),
        (body(messages=[{"content": "hello"}]), "messages"),
        (body(n=0), "n"),
        (body(max_tokens=1.5), "max_tokens"),
        (body(max_completion_tokens=True), "max_completion_tokens"),
        (body(stream="yes"), "stream"),
        (body(tools={}), "tools"),
        (body(tool_choice="required"), "tool_choice"),
        (body(tool_choice={"type": "function", "function": {"name": "x"}}), "tool_choice"),
    ],
    ids=str,
)
def test_a_request_that_makes_no_sense_is_refused_as_openai_does(content: bytes, param: str | None) -> None:
    with pytest.raises(ApiError) as refused:
        read_ask(Endpoint.CHAT, content)
    error = refused.value.document["error"]
    assert (refused.value.status, error["type"], error["param"]) == (400, "invalid_request_error", param)


def test_a_request_says_what_it_wishes_in_headers_or_in_its_last_message() -> None:
    marked = wishes({"x-sim-usage": "false"}, "hi [[sim answer-tokens=5 text='two words' usage=true]]")
    assert (marked.answer_tokens, marked.text, marked.usage) == (5, "two words", False)
    assert wishes({"accept": "x"}, "[[simple]]") is NO_WISHES
    for headers, text in (
        ({"x-sim-bogus": "1"}, ""),
        ({"x-sim-fail": "200"}, ""),
        ({}, "[[sim text='open]]"),
    ):
        with pytest.raises(InvalidRequest):
            wishes(headers, text)


def test_every_setting_is_an_option_and_a_field_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sim.yaml"
    file.write_text("requestsPerMinute: 5\nfirstToken: 1s\nmodels: [a]\nkeys: {first: sk-1}\n")
    settings = parse_arguments(
        ["--config", str(file), "--first-token=20ms", "--no-usage", "--break-rate=0.5"],
        {"WEFT_LLM_SIM_KEY": "sk-2"},
    )
    behaviour = settings.behaviour
    assert (behaviour.requests_per_minute, behaviour.first_token, behaviour.usage) == (5, 0.02, False)
    assert (behaviour.models, behaviour.break_rate) == (("a",), 0.5)
    assert settings.keys == {"first": "sk-1", "environment": "sk-2"}
    assert "sk-" not in repr(settings)
    assert all(name.replace("_", "-") in argument_parser().format_help() for name in Behaviour.model_fields)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--failure-rate=2"], "--failure-rate"),
        (["--first-token=soon"], "--first-token"),
        (["--port=99999"], "--port"),
        (["--config=bad.yaml"], "requestPerMinute"),
        (["--config=absent.yaml"], "absent.yaml"),
        (["--config=unreadable.yaml"], "unreadable.yaml:2"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_named(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("requestPerMinute: 5\n")
    (tmp_path / "unreadable.yaml").write_text("{\n")
    with pytest.raises(InvalidRequest, match=complaint):
        parse_arguments(arguments, {})


def test_behaviour_changes_field_by_field_or_not_at_all() -> None:
    before = Behaviour(first_token=1.0, concurrency=3)
    after = changed(before, {"outage": "hang", "concurrency": None})
    assert (after.first_token, after.outage, after.concurrency) == (1.0, "hang", None)
    with pytest.raises(InvalidRequest, match="did you mean 'outage'"):
        changed(before, {"outrage": "hang"})
