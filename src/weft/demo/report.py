"""The report: what the crew found, and how the mesh did it."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import fmean

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from weft.demo.fan_out import Answer, Failure
from weft.demo.fault import Kill
from weft.demo.findings import Severity, printable
from weft.demo.tree import PassedOver

SLOWEST = 5
"""How many of the slowest answers the report names."""

NOT_CHECKED_RULE = "not-checked"
OMITTED_RULE = "omitted"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class Location(_Record):
    """One finding, and where it is."""

    file: str
    line: int
    """Counted from 1; 0 where it concerns the whole file."""
    severity: Severity
    kind: str
    """The kind of agent that found it."""
    rule: str
    message: str


class Counts(_Record):
    """How many findings of each severity."""

    high: int = 0
    medium: int = 0
    low: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.high + self.medium + self.low


class HotSpot(_Record):
    """A file, and how much was found in it."""

    file: str
    counts: Counts


class AnswerRecord(_Record):
    """One answer of one agent about one file."""

    file: str
    kind: str
    instance: str
    seconds: float
    """From the coordinator's call to the answer."""
    findings: int
    """How many, those that the answer omits or the report leaves out included."""
    not_checked: str
    attempt: int | None
    """The how manieth time the mesh sent the call; None where it does not say."""
    repeats: int
    """How often the coordinator made the call again."""


class FailureRecord(_Record):
    """A call that nobody answered."""

    file: str
    kind: str
    reason: str
    repeats: int


class Share(_Record):
    """What one instance did."""

    instance: str
    kind: str
    answers: int
    share: float
    """Of all answers of its kind, 0 to 1."""
    mean_seconds: float | None
    """None for one that was killed before it had answered anything."""


class KillRecord(_Record):
    """The instance that was killed on purpose."""

    instance: str
    kind: str
    pid: int
    noticed_after_seconds: float | None


class PassedOverRecord(_Record):
    """Something of the tree that was not reviewed."""

    file: str
    reason: str


class SummaryRecord(_Record):
    """What a model wrote about the findings."""

    model: str
    text: str


class Report(_Record):
    """All of it. The JSON report is this, with names in camel case."""

    weft_version: str
    root: str
    started_at: datetime
    seconds: float
    """How long the review took, without the start of the mesh."""
    tools: dict[str, str]
    """The tool and its version, by kind of agent."""
    files: int
    expected_answers: int
    complete: bool
    """Whether every kind of agent answered about every file."""
    counts: Counts
    hot_spots: tuple[HotSpot, ...]
    """Files with findings, the worst first."""
    findings: tuple[Location, ...]
    """The most severe first."""
    passed_over: tuple[PassedOverRecord, ...]
    killed: KillRecord | None
    repeated_by_mesh: int | None
    """Calls that the mesh sent more than once; None where it does not say."""
    repeated_by_coordinator: int
    instances: tuple[Share, ...]
    slowest: tuple[AnswerRecord, ...]
    answers: tuple[AnswerRecord, ...]
    failures: tuple[FailureRecord, ...]
    summary: SummaryRecord | None = None
    """None where there is no model, or it did not answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a review came to, before it is merged."""

    weft_version: str
    root: str
    prefix: str
    """What the names of files begin with in the report: the way from the working directory to the root."""
    started_at: datetime
    seconds: float
    tools: dict[str, str]
    files: Sequence[str]
    passed_over: Sequence[PassedOver]
    answers: Sequence[Answer]
    failures: Sequence[Failure]
    kill: Kill | None
    summary: SummaryRecord | None = None


def merge(outcome: Outcome, min_severity: Severity = Severity.LOW) -> Report:
    """One report of all answers; findings below `min_severity` are left out."""

    def named(file: str) -> str:
        return posixpath.normpath(posixpath.join(outcome.prefix, file))

    answers = [
        replace(each, file=named(each.file))
        for each in sorted(outcome.answers, key=lambda each: (each.file, each.kind))
    ]
    records = [_answer_record(each) for each in answers]
    findings = _worst_first(each for each in _locations(answers) if each.severity.rank >= min_severity.rank)
    expected = len(outcome.files) * len(outcome.tools)
    return Report(
        weft_version=outcome.weft_version,
        root=outcome.root,
        started_at=outcome.started_at,
        seconds=outcome.seconds,
        tools=outcome.tools,
        files=len(outcome.files),
        expected_answers=expected,
        complete=_is_complete(outcome),
        counts=_counts(findings),
        hot_spots=_hot_spots(findings),
        findings=tuple(findings),
        passed_over=tuple(
            PassedOverRecord(file=named(each.file), reason=each.reason) for each in outcome.passed_over
        ),
        killed=_kill_record(outcome.kill),
        repeated_by_mesh=_repeated_by_mesh(records),
        repeated_by_coordinator=sum(each.repeats for each in answers)
        + sum(each.repeats for each in outcome.failures),
        instances=_shares(records, outcome.kill),
        slowest=tuple(sorted(records, key=lambda each: -each.seconds)[:SLOWEST]),
        answers=tuple(records),
        failures=tuple(_failure_record(named(each.file), each) for each in outcome.failures),
        summary=outcome.summary,
    )


def _is_complete(outcome: Outcome) -> bool:
    wanted = {(file, kind) for file in outcome.files for kind in outcome.tools}
    return {(each.file, each.kind) for each in outcome.answers} == wanted


def _locations(answers: Iterable[Answer]) -> Iterable[Location]:
    unchecked: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.review.not_checked:
            unchecked[answer.file].append(answer)
        for each in answer.review.findings:
            yield Location(
                file=answer.file,
                line=each.line,
                severity=each.severity,
                kind=answer.kind,
                rule=each.rule,
                message=each.message,
            )
        if answer.review.omitted:
            yield _omitted(answer)
    yield from (_not_checked(file, refusals) for file, refusals in unchecked.items())


def _omitted(answer: Answer) -> Location:
    """The findings that did not fit into the answer: the least severe ones."""
    message = f"and {answer.review.omitted} more findings"
    return Location(
        file=answer.file, line=0, severity=Severity.LOW, kind=answer.kind, rule=OMITTED_RULE, message=message
    )


def _not_checked(file: str, refusals: Sequence[Answer]) -> Location:
    """A file that a tool cannot read is a finding: one, however many tools say so."""
    reasons = "; ".join(f"{each.kind}: {each.review.not_checked}" for each in refusals)
    kind = refusals[0].kind if len(refusals) == 1 else "crew"
    message = printable(f"it could not be checked ({reasons})")
    return Location(
        file=file, line=0, severity=Severity.HIGH, kind=kind, rule=NOT_CHECKED_RULE, message=message
    )


def _worst_first(findings: Iterable[Location]) -> list[Location]:
    return sorted(
        findings, key=lambda each: (-each.severity.rank, each.file, each.line, each.kind, each.rule)
    )


def _counts(findings: Iterable[Location]) -> Counts:
    counted = Counter(each.severity.value for each in findings)
    return Counts(**counted)


def _hot_spots(findings: Iterable[Location]) -> tuple[HotSpot, ...]:
    by_file: dict[str, list[Location]] = defaultdict(list)
    for each in findings:
        by_file[each.file].append(each)
    spots = [HotSpot(file=file, counts=_counts(found)) for file, found in by_file.items()]
    return tuple(
        sorted(spots, key=lambda each: (-each.counts.high, -each.counts.medium, -each.counts.low, each.file))
    )


def _answer_record(answer: Answer) -> AnswerRecord:
    review = answer.review
    return AnswerRecord(
        file=answer.file,
        kind=answer.kind,
        instance=review.instance,
        seconds=round(answer.seconds, 4),
        findings=len(review.findings) + review.omitted,
        not_checked=review.not_checked,
        attempt=review.attempt,
        repeats=answer.repeats,
    )


def _failure_record(file: str, failure: Failure) -> FailureRecord:
    return FailureRecord(file=file, kind=failure.kind, reason=failure.reason, repeats=failure.repeats)


def _kill_record(kill: Kill | None) -> KillRecord | None:
    if kill is None:
        return None
    return KillRecord(
        instance=kill.instance.id,
        kind=kill.instance.type,
        pid=kill.pid,
        noticed_after_seconds=None if kill.noticed_after is None else round(kill.noticed_after, 3),
    )


def _repeated_by_mesh(answers: Iterable[AnswerRecord]) -> int | None:
    attempts = [each.attempt for each in answers]
    if None in attempts:
        return None
    return sum(attempt is not None and attempt > 1 for attempt in attempts)


def _shares(answers: Sequence[AnswerRecord], kill: Kill | None) -> tuple[Share, ...]:
    of_kind = Counter(each.kind for each in answers)
    by_instance: dict[tuple[str, str], list[float]] = defaultdict(list)
    if kill is not None:
        by_instance[kill.instance.type, kill.instance.id] = []
    for each in answers:
        by_instance[each.kind, each.instance].append(each.seconds)
    return tuple(
        Share(
            instance=instance,
            kind=kind,
            answers=len(seconds),
            share=round(len(seconds) / of_kind[kind], 4) if seconds else 0.0,
            mean_seconds=round(fmean(seconds), 4) if seconds else None,
        )
        for (kind, instance), seconds in sorted(by_instance.items())
    )
