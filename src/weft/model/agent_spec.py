"""Agent: what kind of agent there is, how its health is checked, and how `weft up` starts it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from weft.errors import InvalidRequest
from weft.model import agent, node
from weft.model.duration import Duration, Grace, Interval, between
from weft.model.event_format import EventFormat
from weft.model.spec import MAX_ITEMS, Name, ShortText, Spec, Text
from weft.model.subtopic import parse_topic_pattern

LabelKey = Annotated[
    str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")
]
Labels = Annotated[dict[LabelKey, ShortText], Field(max_length=MAX_ITEMS)]

EnvironmentVariable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]


def _topic_pattern(value: str) -> str:
    try:
        parse_topic_pattern(value)
    except InvalidRequest as error:
        raise ValueError(error.detail) from error
    return value


TopicPatternText = Annotated[str, StringConstraints(max_length=300), AfterValidator(_topic_pattern)]

Threshold = Annotated[int, Field(ge=1, le=100)]


class HealthCheck(Spec):
    """How an instance's health is checked by its sidecar."""

    path: Annotated[str, StringConstraints(max_length=1024, pattern=r"^(/[^\s?#]*)?$")] | None = None
    """A GET of it must be answered with 2xx; empty: connecting is enough. By default what suits the protocol:
    the agent's card for a2a, connecting for mcp and mcp-stdio, else `/health`."""
    interval: Interval = 10.0
    timeout: Annotated[Duration, AfterValidator(between("10ms", "5m"))] = 2.0
    healthy_threshold: Threshold = 1
    """Checks in a row that must pass before an instance gets calls."""
    unhealthy_threshold: Threshold = 3
    """Checks in a row that must fail before an instance gets no more calls."""


class LocalitySpec(Spec):
    """Where the instances run."""

    region: ShortText = ""
    zone: ShortText = ""

    @property
    def value(self) -> agent.Locality:
        """As the registry has it."""
        return agent.Locality(self.region, self.zone)


class TaskIntake(Spec):
    """A queue whose tasks the agent gets at `POST /tasks`; agents on the SDK take them by themselves."""

    queue: Name
    concurrency: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Tasks that one instance works on at once; by default what the queue says."""


class EventIntake(Spec):
    """Topics whose events the agent gets at `POST /events`; agents on the SDK take them by themselves."""

    topic: TopicPatternText
    """`orders`, `orders.created`, `orders.*`, `*.failed`, `>`."""
    every_instance: bool = False
    """Whether every instance gets each event, rather than one of them."""


class Run(Spec):
    """How `weft up` starts the agent."""

    command: Annotated[tuple[Text, ...], Field(min_length=1, max_length=256)]
    """The program and its arguments; no shell is involved."""
    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    environment: Annotated[dict[EnvironmentVariable, Text], Field(max_length=MAX_ITEMS)] = {}
    """Added to the environment of `weft up`."""
    working_directory: Text | None = None
    """Relative to the manifest's directory, which is also the default."""


class AgentSpec(Spec):
    """A kind of agent; metadata.name is its type."""

    description: Text = ""
    capabilities: Annotated[tuple[Name, ...], Field(max_length=MAX_ITEMS)] = ()
    version: ShortText = ""
    labels: Labels = {}
    """Given to every instance."""
    protocol: node.AgentProtocol = node.AgentProtocol.HTTP1
    mcp_path: Annotated[str, StringConstraints(max_length=1024, pattern=r"^/[!-~]*$")] = "/mcp"
    """Where an agent that speaks mcp takes requests."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Where the agent listens; if omitted, a free one is chosen and given to it as PORT."""
    health: HealthCheck = HealthCheck()
    drain_timeout: Grace = 30.0
    """How long a stopping instance may take to finish the calls in flight."""
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """Share of the calls under the policy `weighted`."""
    locality: LocalitySpec = LocalitySpec()
    tasks: Annotated[tuple[TaskIntake, ...], Field(max_length=64)] = ()
    """Queues to work on."""
    events: Annotated[tuple[EventIntake, ...], Field(max_length=64)] = ()
    """Topics to subscribe to."""
    event_format: EventFormat = EventFormat.BINARY
    """How events come: CloudEvents over HTTP (`binary`, `structured`), or `{topic, event}` (`mesh`)."""
    run: Run | None = None
