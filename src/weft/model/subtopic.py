"""Subtopics: what stands behind a topic's name in `orders.created.eu`, and patterns of them.

A topic's name is a DNS label. Below it publishers may use any subtopics: tokens separated by dots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from weft.errors import InvalidRequest
from weft.model.names import check_name

MAX_SUBTOPIC_LENGTH = 200

ANY_TOKEN = "*"  # noqa: S105 -- a token of a pattern
"""Stands for one token."""
REST = ">"
"""At the end of a pattern: stands for one or more tokens."""
ONLY_ROOT = "."
"""The pattern of messages without a subtopic."""

_SUBTOPIC = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_PATTERN = re.compile(r"(?:(?:[A-Za-z0-9_-]+|\*)\.)*(?:[A-Za-z0-9_-]+|\*|>)")


def check_subtopic(subtopic: str) -> str:
    """Return `subtopic` if it is one, or empty; else raise InvalidRequest."""
    if not subtopic or (len(subtopic) <= MAX_SUBTOPIC_LENGTH and _SUBTOPIC.fullmatch(subtopic)):
        return subtopic
    raise InvalidRequest(
        f"{subtopic[:MAX_SUBTOPIC_LENGTH]!r} is no subtopic: use letters, digits, `-` and `_`, in tokens "
        f"separated by dots, {MAX_SUBTOPIC_LENGTH} characters at most"
    )


def check_pattern(pattern: str) -> str:
    """Return `pattern` if it is one of subtopics (empty: all; `.`: only none); else raise InvalidRequest."""
    if pattern in {"", ONLY_ROOT} or (len(pattern) <= MAX_SUBTOPIC_LENGTH and _PATTERN.fullmatch(pattern)):
        return pattern
    raise InvalidRequest(
        f"{pattern[:MAX_SUBTOPIC_LENGTH]!r} is no pattern of subtopics: use tokens separated by dots, `*` "
        "for any one token, and `>` at the end for all that follow"
    )


def matches(pattern: str, subtopic: str) -> bool:
    """Whether a message with that subtopic (empty: none) is one that `pattern` stands for."""
    if not pattern:
        return True
    if pattern == ONLY_ROOT or not subtopic:
        return pattern == ONLY_ROOT and not subtopic
    wanted, given = pattern.split("."), subtopic.split(".")
    if wanted[-1] == REST:
        wanted = wanted[:-1]
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        each in {ANY_TOKEN, token} for each, token in zip(wanted, given, strict=True)
    )


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """What somebody subscribes to: `orders`, `orders.created`, `orders.*.eu`, `*.failed`, `>`."""

    topic: str
    """A topic's name; empty: every topic."""
    pattern: str
    """Of subtopics."""

    def is_of(self, topic: str) -> bool:
        """Whether it is about that topic."""
        return self.topic in {"", topic}


def parse_topic(text: str) -> tuple[str, str]:
    """The topic and the subtopic in `orders.created`. Raises InvalidRequest."""
    topic, _, subtopic = text.partition(".")
    if text.endswith("."):
        raise InvalidRequest(
            f"{text[:MAX_SUBTOPIC_LENGTH]!r} ends in a dot: name a subtopic, or leave it out"
        )
    return check_name(topic, "topic"), check_subtopic(subtopic)


def parse_topic_pattern(text: str) -> TopicPattern:
    """The pattern that `text` is. A topic's name alone stands for all in it. Raises InvalidRequest."""
    if text == REST:
        return TopicPattern("", "")
    topic, _, pattern = text.partition(".")
    if text.endswith("."):
        raise InvalidRequest(f"{text[:MAX_SUBTOPIC_LENGTH]!r} ends in a dot: go on, or leave it out")
    return TopicPattern("" if topic == ANY_TOKEN else check_name(topic, "topic"), check_pattern(pattern))
