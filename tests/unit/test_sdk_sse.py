"""Server-Sent Events, written and read."""

from __future__ import annotations

import pytest

from weft.sdk.sse import HEARTBEAT, Event, EventDecoder, encode_event

STREAM = encode_event(b'"one"') + HEARTBEAT + encode_event(b'{"a":1}', "added") + encode_event(b"{}", "end")
EVENTS = [Event('"one"'), Event('{"a":1}', "added"), Event("{}", "end")]


def test_what_is_written_is_read_again() -> None:
    assert EventDecoder().feed(STREAM) == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_events_arrive_whole_however_they_are_cut(size: int, line_end: bytes) -> None:
    stream = STREAM.replace(b"\n", line_end) + b":"  # what follows shows whether a CR is half of a CRLF
    decoder = EventDecoder()
    events = [
        event for start in range(0, len(stream), size) for event in decoder.feed(stream[start : start + size])
    ]
    assert events == EVENTS


def test_several_data_lines_are_one_text() -> None:
    assert EventDecoder().feed(b"data: a\ndata:b\ndata\nretry: 7\n\n") == [Event("a\nb\n")]


def test_an_event_has_the_id_that_was_sent_with_it() -> None:
    events = EventDecoder().feed(b"event: state\nid: 4.1.0\ndata: a\n\ndata: b\n\n")
    assert events == [Event("a", "state", "4.1.0"), Event("b")]


def test_an_event_over_the_limit_is_refused_in_one_line_and_in_many() -> None:
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        EventDecoder(100).feed(b"data: " + b"x" * 100)
    decoder = EventDecoder(100)
    for _ in range(20):
        decoder.feed(b"data: xxxx\n")
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        decoder.feed(b"data: xxxx\n")


def test_the_limit_is_on_one_event_not_on_the_stream() -> None:
    decoder = EventDecoder(100)
    stream = b"data: xxxx\ndata: yyyy\n\n" * 100
    events = [
        event for start in range(0, len(stream), 17) for event in decoder.feed(stream[start : start + 17])
    ]
    assert events == [Event("xxxx\nyyyy")] * 100


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        EventDecoder().feed(b"data: \xff\n\n")
