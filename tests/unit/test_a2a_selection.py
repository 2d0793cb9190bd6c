"""Which handler a message is for, and what it gives that handler."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

import pytest

from weft import Conversation, InvalidRequest, Mesh
from weft.sdk.a2a.selection import UnusableContent, arguments_for, skill_for, wish_of
from weft.sdk.handler import Handler, handler_of


def handler(function: Any) -> Handler:
    return handler_of(function.__name__, function, streams=False, at_hand=(Mesh, Conversation))


async def book(city: str, day: str | None = None, language: str = "en", count: int = 1) -> None: ...


async def note(text: str, language: str = "en") -> None: ...


async def count(number: int) -> None: ...


async def ring() -> None: ...


async def talk(conversation: Conversation) -> None: ...


async def style(form: Literal["a", "b"], when: date) -> None: ...


HANDLERS = {each.__name__: handler(each) for each in (book, note, count, ring)}


def message(*parts: Any, **fields: Any) -> dict[str, Any]:
    made = [{"text": each} if isinstance(each, str) else {"data": each} for each in parts]
    return {"messageId": "m", "role": "ROLE_USER", "parts": made, **fields}


def test_the_skill_is_named_by_metadata_or_by_data_or_is_the_default_or_the_only_one() -> None:
    assert wish_of(message("x", metadata={"skill": "note"})).skill == "note"
    for named in ({"skill": "note", "arguments": {"text": "x"}}, {"kind": "note", "payload": {"text": "x"}}):
        wish = wish_of(message(named))
        assert (wish.skill, wish.arguments) == ("note", {"text": "x"})
    assert skill_for(wish_of(message("x")), HANDLERS, "note") is HANDLERS["note"]
    assert skill_for(wish_of(message("x")), {"ring": HANDLERS["ring"]}, None) is HANDLERS["ring"]


def test_a_skill_that_is_unknown_or_unclear_is_answered_with_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"no skill 'x', only: book, count, note, ring"):
        skill_for(wish_of(message("x", metadata={"skill": "x"})), HANDLERS, None)
    with pytest.raises(InvalidRequest, match=r"book, count, note, ring"):
        skill_for(wish_of(message("x")), HANDLERS, None)
    with pytest.raises(InvalidRequest, match="a text"):
        wish_of(message("x", metadata={"skill": 5}))


def test_data_that_only_looks_like_a_request_is_arguments() -> None:
    data = {"skill": "x", "level": 3}
    assert wish_of(message(data)).arguments == data


@pytest.mark.parametrize("data", [[1], 5, "text", {"skill": "note", "arguments": [1]}])
def test_data_that_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(InvalidRequest, match="object"):
        wish_of({**message(), "parts": [{"data": data}]})


def test_a_text_is_for_the_first_parameter_that_wants_one() -> None:
    assert arguments_for(HANDLERS["book"], [message("Rome")]) == {"city": "Rome"}
    given = arguments_for(HANDLERS["book"], [message("tomorrow", {"city": "Rome"})])
    assert given == {"city": "Rome", "day": "tomorrow"}


def test_later_messages_add_to_what_was_given() -> None:
    turns = [message({"city": "Rome", "count": 2}), message("tomorrow"), message({"count": 3})]
    assert arguments_for(HANDLERS["book"], turns) == {"city": "Rome", "count": 3, "day": "tomorrow"}
    assert arguments_for(HANDLERS["note"], [message("one"), message("two")]) == {"text": "two"}


def test_several_texts_are_lines_of_one() -> None:
    assert arguments_for(HANDLERS["note"], [message("one", "two")]) == {"text": "one\ntwo"}


def test_a_text_for_a_handler_that_takes_none_is_refused_unless_it_needs_nothing() -> None:
    with pytest.raises(UnusableContent, match="number"):
        arguments_for(HANDLERS["count"], [message("x")])
    with pytest.raises(UnusableContent, match="neither"):
        wish_of({**message(), "parts": [{"url": "http://127.0.0.1/"}]})
    with pytest.raises(UnusableContent, match="neither"):
        wish_of({**message(), "parts": [{"text": "x"}, {"raw": "eA==", "mediaType": "image/png"}]})
    assert arguments_for(HANDLERS["ring"], [message("x")]) == {}
    assert arguments_for(handler(talk), [message("x")]) == {}


def test_choices_are_no_texts_and_times_are() -> None:
    given = arguments_for(handler(style), [message("2026-01-02", {"form": "a"})])
    assert given == {"form": "a", "when": date(2026, 1, 2)}


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InvalidRequest, match="number"):
        arguments_for(HANDLERS["count"], [message({"number": "many"})])
