"""A task's life, from its record and what its workers told: steps in words, and spans of a timeline.

Of attempts the record keeps the latest only. Of those before it is known what their workers told, and when.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from weft.dashboard import quantities

MAX_SHOWN = 2000
"""Characters of a result, or of what a worker told, that are shown."""

TONES = {"queued": "muted", "running": "warn", "succeeded": "ok", "failed": "bad", "cancelled": "muted"}
"""How each state is coloured."""

_ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Phase(StrEnum):
    """What a task does for a while."""

    WAITING = "waiting"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to a task, or is to happen."""

    at: float | None
    """Seconds since 1970; None: nobody wrote down when."""
    title: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A while in a task's life. Both ends are parts of the whole, 0 to 1."""

    phase: Phase
    label: str
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Life:
    """All of it, as it is known now."""

    state: str
    steps: tuple[Step, ...]
    spans: tuple[Span, ...]
    begin: float
    end: float
    """Of the timeline: the task's end, or now."""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens, unless it is redriven."""
        return self.state in _ENDED


@dataclass(frozen=True, slots=True)
class _Attempt:
    number: int
    begin: float | None
    end: float | None
    """None: it goes on, or nobody knows when it ended."""


def life_of(task: Mapping[str, Any], events: Sequence[Mapping[str, Any]], now: float) -> Life:
    """The life of a task that stands so, and whose workers told that; `now` in seconds since 1970."""
    attempts = _attempts(task, events)
    begin = quantities.parsed(task.get("submittedAt")) or now
    finished = quantities.parsed(task.get("finishedAt"))
    end = max(finished or now, begin)
    return Life(
        str(task["state"]),
        tuple(_steps(task, events, attempts)),
        tuple(_spans(task, attempts, begin, end)),
        begin,
        end,
    )


def task_row(task: Mapping[str, Any], now: float) -> dict[str, Any]:
    """A row for a task."""
    progress = task.get("progress") or {}
    begin, end = quantities.parsed(task.get("submittedAt")), quantities.parsed(task.get("finishedAt"))
    error = task.get("error") or {}
    return {
        "id": task["id"],
        "queue": task["queue"],
        "state": task["state"],
        "tone": TONES.get(task["state"], "muted"),
        "priority": task["priority"],
        "attempts": task["attempts"],
        "submitted": begin,
        "age": None if begin is None else max(0.0, (end or now) - begin),
        "progress": progress.get("fraction"),
        "worker": task.get("worker", ""),
        "submitter": task.get("submitter", ""),
        "error": f"{error.get('code', '')}: {error.get('detail', '')}" if error else "",
    }


def shown_json(value: Any) -> str:
    """A value as JSON to look at, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(text):,} characters)"


def _attempts(task: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> list[_Attempt]:
    told: dict[int, list[float]] = {}
    for each in events:
        at = quantities.parsed(each.get("at"))
        if at is not None:
            told.setdefault(int(each["attempt"]), []).append(at)
    latest = int(task.get("attempts") or 0)
    return [
        _latest(task, number, told.get(number, []))
        if number == latest
        else _Attempt(
            number, min(told.get(number, []), default=None), max(told.get(number, []), default=None)
        )
        for number in range(1, latest + 1)
    ]


def _latest(task: Mapping[str, Any], number: int, told: Sequence[float]) -> _Attempt:
    begin = quantities.parsed(task.get("startedAt"))
    if task["state"] in _ENDED:
        return _Attempt(number, begin, quantities.parsed(task.get("finishedAt")))
    return _Attempt(number, begin, None if task["state"] == "running" else max(told, default=None))


def _steps(
    task: Mapping[str, Any], events: Sequence[Mapping[str, Any]], attempts: Sequence[_Attempt]
) -> list[Step]:
    latest = len(attempts)
    begun = [(_place(attempts, each), _begun(task, each, latest=latest)) for each in attempts]
    told = [(step.at or 0.0, step) for step in map(_told, events)]
    middle = sorted((*begun, *told), key=lambda each: each[0])
    return [*_before(task), *(step for _, step in middle), *_after(task)]


def _place(attempts: Sequence[_Attempt], attempt: _Attempt) -> float:
    """When an attempt began, or at the latest: when one of those after it is known to have."""
    return next((each.begin for each in attempts[attempt.number - 1 :] if each.begin is not None), 0.0)


def _before(task: Mapping[str, Any]) -> list[Step]:
    submitted = Step(
        quantities.parsed(task.get("submittedAt")), "Submitted", f"by {task.get('submitter', '')}"
    )
    start = quantities.parsed(task.get("notBefore"))
    if start is None or task["attempts"] or start <= (submitted.at or 0):
        return [submitted]
    return [submitted, Step(start, "May start", "not before this time")]


def _begun(task: Mapping[str, Any], attempt: _Attempt, *, latest: int) -> Step:
    title = f"Attempt {attempt.number}"
    if attempt.number == latest:
        return Step(attempt.begin, title, f"begun by {task['worker']}" if task.get("worker") else "begun")
    if attempt.begin is None:
        return Step(None, title, "when it began is not kept, and it told nothing")
    return Step(attempt.begin, title, "known by what it told, first at this time")


def _told(event: Mapping[str, Any]) -> Step:
    at, data = quantities.parsed(event.get("at")), event.get("data")
    if event["kind"] == "progress" and isinstance(data, Mapping):
        fraction = data.get("fraction")
        done = f"Progress {quantities.percent(fraction)}" if fraction is not None else "Progress"
        return Step(at, done, str(data.get("message") or ""))
    return Step(at, "Partial result", shown_json(data))


def _after(task: Mapping[str, Any]) -> list[Step]:
    state, error = str(task["state"]), task.get("error") or {}
    wrong = f"{error['code']}: {error['detail']}" if error else ""
    if state in _ENDED:
        detail = shown_json(task.get("result")) if state == "succeeded" else wrong
        return [Step(quantities.parsed(task.get("finishedAt")), state.capitalize(), detail)]
    steps = []
    if state == "queued" and wrong:
        again = quantities.parsed(task.get("notBefore"))
        steps.append(Step(again, "Waits for its next attempt", f"the latest failed: {wrong}"))
    if task.get("deadline"):
        steps.append(Step(quantities.parsed(task["deadline"]), "Deadline", "then it is too late for it"))
    return steps


def _spans(task: Mapping[str, Any], attempts: Sequence[_Attempt], begin: float, end: float) -> list[Span]:
    """Waiting and attempts in turn. An attempt of which no time is known counts to the waiting around it."""
    length = max(end - begin, 1e-9)

    def span(phase: Phase, label: str, since: float, until: float) -> Span:
        left, right = ((min(max(each, begin), end) - begin) / length for each in (since, until))
        return Span(phase, label, left, max(0.0, right - left))

    spans, at = [], begin
    for each in attempts:
        if each.begin is None:
            continue
        if each.begin > at:
            spans.append(span(Phase.WAITING, "waiting", at, each.begin))
        going_on = each.end is None and task["state"] == "running"
        at = end if going_on else max(each.begin, each.end or each.begin)
        spans.append(span(Phase.RUNNING, f"attempt {each.number}", each.begin, at))
    if at < end and (task["state"] == "queued" or not spans):
        spans.append(span(Phase.WAITING, "waiting", at, end))
    return spans
