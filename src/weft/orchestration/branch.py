"""Who is asked, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

from weft.errors import InvalidRequest, MeshError
from weft.model.agent import Instance
from weft.model.call_budget import WHOLE_TREE, parse_budget
from weft.sdk.mesh import Mesh
from weft.sdk.task_handle import TaskHandle

DEFAULT_KIND = "task"
"""The kind of request that agents get where none is named."""

DEFAULT_TIMEOUT = 60.0
"""Seconds that a branch may take where nobody says otherwise."""

DEFAULT_TEMPERATURE = 0.7
DEFAULT_MAX_TOKENS = 2048

Function = Callable[[Any], Any]
"""A function of this program, in an agent's place: it gets what is asked, and returns or awaits the
answer."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One who is asked: an agent, a queue, a model or a function, and on which terms.

    `Branch("reviewer")` is an agent: by type, capability (`review.cap`), or instance (`reviewer-1.reviewer`,
    or an Instance). `Branch(queue="reviews")` is a task in a queue, for what takes long: it is cancelled with
    the orchestration. `Branch(model="gpt-4o-mini", prompt="You are ...")` is a model at `http://llm.mesh/v1`.
    `Branch(function)` is a function of this program, such as another orchestration.

    Raises InvalidRequest for what makes no sense.
    """

    to: str | Instance | Function = ""
    kind: str = ""
    """Of the request; by default the orchestration's."""
    _: KW_ONLY
    prompt: str = ""
    """A model gets it as its system message. An agent gets it as the argument `prompt`, if there is one."""
    model: str = ""
    """Beside an agent or a queue: an argument, with `temperature` and `max_tokens`. Alone: who is asked."""
    temperature: float = DEFAULT_TEMPERATURE
    max_tokens: int = DEFAULT_MAX_TOKENS
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """More arguments of the request; for a model, more fields of it (None leaves one out)."""
    field: str = "task"
    """The argument in which an agent gets what is asked, unless that is a mapping of arguments itself."""
    queue: str = ""
    stream: bool = False
    """Whether the agent answers by a stream, or the model is to: the items are told as they come."""
    timeout: float | None = None
    """Seconds it may take; also the deadline of all calls made because of it."""
    budget: str = ""
    """What it may spend on models with all it calls: `1000 tokens`, `0.05 usd`."""
    weight: float = 1.0
    """Of its vote."""
    fallback: str | Instance | Function | Branch | None = None
    """Who is asked if it fails."""
    result_type: Any = None
    """A type, or a TypeAdapter, which checks and converts the answer; that of a model is to be JSON then."""
    idempotency_key: str | None = None
    """An agent's call may be repeated with it; a task that was submitted with it before is that task."""
    name: str = ""
    """By which others know it; by default, who it is."""

    def __post_init__(self) -> None:
        if not (self.to or self.queue or self.model):
            raise InvalidRequest("a Branch is to an agent, a function, a queue or a model: it names none")
        if self.to and self.queue:
            raise InvalidRequest(f"a Branch is to {self.label!r} or by queue {self.queue!r}, not both")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise InvalidRequest(f"the timeout of {self.label!r} must be more than 0 seconds")
        if not 0 < self.weight < math.inf:
            raise InvalidRequest(f"the weight of {self.label!r} must be more than 0")
        check_budget(self.budget)

    @property
    def label(self) -> str:
        """What it is called: by its name, or else by who it is."""
        if self.name:
            return self.name
        if isinstance(self.to, Instance):
            return f"{self.to.id}.{self.to.type}"
        if callable(self.to):
            return str(getattr(self.to, "__name__", type(self.to).__name__))
        return self.to or self.queue or self.model


Step = str | Instance | Function | Branch
"""Who can be asked; a string names an agent."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """Everybody whom discovery finds when it begins: all that is given must hold of an instance."""

    type: str | None = None
    capability: str | tuple[str, ...] = ()
    version: str | None = None
    labels: Mapping[str, str] | None = None
    limit: int | None = None
    """How many at most; None: all."""
    each: str = "instance"
    """One branch for each `instance`, or for each `type`."""
    like: Branch | None = None
    """What the branches are like but for whom they are to."""

    async def branches(self, mesh: Mesh) -> list[Branch]:
        """Those there are. Raises InvalidRequest and Unavailable."""
        if self.each not in {"instance", "type"}:
            raise InvalidRequest(f"one branch for each 'instance' or each 'type', not each {self.each!r}")
        found = await mesh.discover(
            self.type, capability=self.capability, version=self.version, labels=self.labels
        )
        whom: list[Instance | str] = list(found)
        if self.each == "type":
            whom = list(dict.fromkeys(each.type for each in found))
        return [self._to(each) for each in whom[: self.limit]]

    def _to(self, whom: Instance | str) -> Branch:
        return Branch(whom) if self.like is None else replace(self.like, to=whom, queue="")


Agents = Iterable[Step] | Discovered
"""Whom an orchestration asks."""


def branch_to(step: Step) -> Branch:
    """Who is asked, as a Branch. Raises InvalidRequest."""
    return step if isinstance(step, Branch) else Branch(step)


async def branches_to(agents: Agents, mesh: Mesh) -> list[Branch]:
    """All who are asked. Raises InvalidRequest, also if it is nobody, and Unavailable."""
    if isinstance(agents, str):
        raise InvalidRequest(f"agents are given as a list: [{agents!r}]")
    if isinstance(agents, Discovered):
        return await agents.branches(mesh)
    return [branch_to(each) for each in agents]


def check_budget(budget: str) -> str:
    """Return `budget`. Raises InvalidRequest unless it is empty, `1000 tokens`, `0.05 usd`, or both."""
    if budget and any(limit.branch != WHOLE_TREE for limit in parse_budget(budget)):
        raise InvalidRequest(f"a branch's budget has no id of its own: {budget!r}")
    return budget


@dataclass(frozen=True, slots=True)
class Partial:
    """Something a branch told before it was done: an item of a stream, a partial result of a task."""

    branch: Branch
    index: int
    """As a BranchResult has it."""
    data: Any


@dataclass(frozen=True, slots=True)
class BranchResult:
    """How a branch ended."""

    branch: Branch
    index: int
    """Its place among the branches, or that of its item, from 0."""
    value: Any = None
    """What was answered; the items of a stream as a list, but the text of a model."""
    error: MeshError | None = None
    """Why it failed; None if it did not."""
    seconds: float = 0.0
    """From its begin to its end, a fallback's time included."""
    instance: str = ""
    """`<id>.<type>` of who answered, where that is known: of an instance that was named, and of a task's
    worker."""
    task: TaskHandle | None = None
    """The task that it was, if it went through a queue."""
    replaced: MeshError | None = None
    """Why the branch itself failed, if this is its fallback's answer."""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.error is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an orchestration came to."""

    value: Any
    """The answer that was made of all; where nothing was to be made of them, the list of the answers."""
    results: tuple[BranchResult, ...]
    """How the branches ended, in their order; those that were not needed any more are missing."""
    unneeded: tuple[Branch, ...] = ()
    """Branches that were cancelled, or not even begun, since there were enough answers."""
    synthesis: BranchResult | None = None
    """How the answer was made, if somebody made it."""
    seconds: float = 0.0

    @property
    def answers(self) -> list[Any]:
        """The values of those who succeeded, in their order."""
        return [each.value for each in self.results if each.ok]

    @property
    def failures(self) -> list[BranchResult]:
        """Those who failed."""
        return [each for each in self.results if not each.ok]


News = Partial | BranchResult
"""What can be told of an orchestration while it runs."""
