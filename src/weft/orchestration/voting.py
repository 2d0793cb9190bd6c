"""Several are asked the same, and what most say counts."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from weft.errors import AgentFailed, NoHealthyAgent
from weft.orchestration.asking import Job, Terms, text_of
from weft.orchestration.branch import (
    DEFAULT_KIND,
    DEFAULT_TIMEOUT,
    Agents,
    Branch,
    BranchResult,
    News,
    Outcome,
    Step,
    branch_to,
    branches_to,
)
from weft.orchestration.coordination import key_of
from weft.orchestration.errors import Undecided
from weft.orchestration.fan_out import Gathering, OnFailure, alone
from weft.orchestration.orchestration import Orchestration, terms_of
from weft.orchestration.synthesis import is_model
from weft.orchestration.tally import Count, Rule, Tally
from weft.sdk.mesh import Mesh

TIE_KIND = "decide"
"""The kind of request by which an agent is asked to decide a tie."""

Ballot = Callable[[Any], Any]
"""Reads the choice from an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Outcome):
    """What a vote came to; `value` is the choice that won."""

    counts: tuple[Count, ...]
    """Every choice with votes, that with the most first."""
    spoiled: tuple[BranchResult, ...] = ()
    """Who answered with something that was not to choose."""
    tied: tuple[Any, ...] = ()
    """The choices among which somebody else decided, where the vote alone did not."""


@Orchestration
async def vote(
    question: Any,
    voters: Agents,
    *,
    mesh: Mesh,
    choices: Sequence[Any] | None = None,
    rule: Rule = "majority",
    ballot: Ballot | None = None,
    tie: Step | None = None,
    kind: str = DEFAULT_KIND,
    quorum: int | float | None = None,
    on_failure: OnFailure = "continue",
    branch_timeout: float = DEFAULT_TIMEOUT,
    timeout: float | None = None,
    budget: str = "",
    idempotency_key: str | None = None,
) -> AsyncGenerator[News | Verdict, None]:
    """Ask all `voters` the same `question`, and count their answers, each with its branch's `weight`.

    `rule` is what wins: `majority`, more than half of the weight of all who are asked, whether they answer or
    not; `plurality`, more than any other; `unanimous`, all votes, one from every voter. Once no vote that is
    still to come can change it, the others are cancelled.

    `choices` are what can be voted for; models are told them. An answer that is none of them is spoiled.
    `ballot` reads the choice from an answer. Texts count as the same whatever their case.

    If nobody wins, `tie` decides: a function of the list of the choices that lead, an agent (by a request of
    the kind `decide`, with `question` and `choices`) or a model. Without it, that raises Undecided.

    With a `quorum` so many voters must answer; the rest of the arguments is as with `coordinate`. Raises
    NoQuorum, Undecided, TimedOut, InvalidRequest, NoHealthyAgent if nobody is discovered.
    """
    began = time.monotonic()
    terms = terms_of(kind, branch_timeout, timeout, budget)
    branches = [_told(branch, choices) for branch in await branches_to(voters, mesh)]
    if not branches:
        raise NoHealthyAgent("there is nobody who could vote")
    jobs = [Job(each, index, question, key_of(idempotency_key, index)) for index, each in enumerate(branches)]
    # A quorum of votes does not end the vote: what decides does.
    gathering = Gathering(mesh, jobs, terms, quorum=quorum, on_failure=on_failure, ends_early=False)
    election = _Election(Tally(sum(each.weight for each in branches), rule, choices), ballot)
    async with aclosing(gathering.news()) as news:
        async for each in news:
            if isinstance(each, BranchResult):
                election.note(each)
                if election.tally.decided and gathering.reached:
                    gathering.stop()
            yield each
    winner = election.tally.winner()
    tied: tuple[Any, ...] = ()
    if winner is None:
        tied = tuple(election.tally.tied())
        if tie is None or not tied:
            raise _undecided(rule, election.tally, gathering.results)
        value = await _decided(mesh, tie, question, tied, terms)
    else:
        value = winner.choice
    yield Verdict(
        value=value,
        results=gathering.results,
        unneeded=gathering.unneeded,
        counts=election.tally.counts,
        spoiled=tuple(election.spoiled),
        tied=tied,
        seconds=time.monotonic() - began,
    )


class _Election:
    def __init__(self, tally: Tally, ballot: Ballot | None) -> None:
        self.tally = tally
        self.spoiled: list[BranchResult] = []
        self._ballot = ballot

    def note(self, result: BranchResult) -> None:
        if not result.ok:
            self.tally.abstain(result.branch.weight)
            return
        choice = result.value if self._ballot is None else self._ballot(result.value)
        if not self.tally.vote(result.branch.label, result.branch.weight, choice):
            self.spoiled.append(result)


def _told(branch: Branch, choices: Sequence[Any] | None) -> Branch:
    """A voter that is a model is told what it can vote for."""
    if choices is None or not is_model(branch):
        return branch
    told = f"Answer with exactly one of these, and nothing else: {_listed(choices)}."
    return replace(branch, prompt=f"{branch.prompt}\n\n{told}".strip())


async def _decided(mesh: Mesh, tie: Step, question: Any, tied: Sequence[Any], terms: Terms) -> Any:
    """The choice that `tie` makes. Raises AgentFailed if it is none of those that lead."""
    branch = branch_to(tie)
    asked: Any = {"question": question, "choices": list(tied)}
    if callable(branch.to):
        asked = list(tied)
    elif is_model(branch):
        branch = _told(branch, tied)
        asked = text_of(question)
    else:
        branch = replace(branch, kind=branch.kind or TIE_KIND)
    answer = None
    async with aclosing(alone(mesh, Job(branch, 0, asked), terms)) as news:
        async for each in news:
            if isinstance(each, BranchResult):
                answer = each.value
    decision = Tally(1.0, "plurality", tied)
    if not decision.vote(branch.label, 1.0, answer):
        raise AgentFailed(f"{branch.label} decided a tie by {answer!r}, which is none of {_listed(tied)}")
    return decision.counts[0].choice


def _undecided(rule: Rule, tally: Tally, results: Sequence[BranchResult]) -> Undecided:
    counted = ", ".join(f"{text_of(each.choice)} {each.weight:g}" for each in tally.counts) or "no votes"
    return Undecided(f"no choice has won by {rule}: {counted}", results)


def _listed(choices: Sequence[Any]) -> str:
    return ", ".join(text_of(each) for each in choices)
