"""What AccessPolicies come to in NATS: the subjects of topics, queues and tasks that an identity may use.

- Who may *submit* to a queue puts messages into its lanes, delayed ones too; writes its tasks' records, and
  reads these and their events one by one; sends and hears the tasks' signals.
- Who may *consume* it may all that, takes from its lanes and acknowledges; puts into its dead letters; writes
  events.
- Either puts into the queue of webhooks, from which gateways take.
- Who may *publish* to a topic puts messages into it, under any subtopic.
- Who may *subscribe* to it takes for the group of its type, and for that of its instance, and acknowledges;
  puts what it cannot process into the topic's dead-letter topic, in those groups' names.
- Everybody writes and reads the *contexts* of its own tenant, key by key; within a tenant nobody is kept
  apart.

Subscribers may ask how many partitions a topic has, submitters how many messages of a queue are delayed:
both by asking how the stream is.

Within a queue nobody is kept apart: only submitters and workers are told the ids of tasks. Gateways, which
are agents of a type that a Gateway declares, may also ask how the streams are that they use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from weft.model.access import Action
from weft.model.context_keys import CONTEXTS_BUCKET, tenant_keys
from weft.model.decision import AccessPolicies, AccessRequest, AccessTarget, TargetKind, decide
from weft.model.inbox import A2A_TASKS_BUCKET, inbox_queue, is_inbox
from weft.model.message_subjects import (
    CANCELLATION_SIGNALS,
    LANES,
    TASK_EVENTS_BUCKET,
    TASK_SIGNALS,
    TASKS_BUCKET,
    WEBHOOK_QUEUE,
    dead_stream,
    dead_subjects,
    group_consumers,
    instance_group,
    lane_consumer,
    later_stream,
    later_subjects,
    queue_stream,
    queue_subjects,
    topic_stream,
    topic_subject,
    topic_subjects,
    type_group,
)
from weft.model.spiffe import Role, SpiffeId
from weft.model.tenant import tenant_of
from weft.model.topic import DEAD_LETTERS, TopicSpec
from weft.store.nats_accounts import MEMBER_API, MEMBER_SIGNALS, SIGNALS
from weft.store.nats_wire import stream_name, subject

MAX_CONSUMERS = 1000
"""Whose groups have more consumers is granted these by their names, in whichever topic: NATS is told all that
somebody may do in one message, which has a size limit. The groups are that identity's own even so."""

_ANY = "*"


@dataclass(frozen=True, slots=True)
class MessageGrant:
    """The subjects of topics, queues and tasks that somebody may use."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


NO_MESSAGES = MessageGrant()


@dataclass(frozen=True, slots=True)
class Declared:
    """What there is to be granted."""

    topics: Mapping[str, TopicSpec]
    queues: Collection[str]
    gateways: Collection[str] = ()
    """The agent types of gateways."""


def message_grants(
    policies: AccessPolicies,
    principal: SpiffeId,
    declared: Declared,
    *,
    labels: Mapping[str, str] | None = None,
) -> MessageGrant:
    """The subjects of what the policies let `principal` use; `labels` the authority attested to it."""

    def allowed(action: Action, kind: TargetKind, name: str) -> bool:
        request = AccessRequest(action, AccessTarget(kind, name))
        decision = decide(policies, principal, request, trust_domain=principal.trust_domain, labels=labels)
        return decision.allowed

    topics = {DEAD_LETTERS: TopicSpec(), **declared.topics}
    published = [each for each in topics if allowed(Action.PUBLISH, TargetKind.TOPIC, each)]
    subscribed = {
        name: spec for name, spec in topics.items() if allowed(Action.SUBSCRIBE, TargetKind.TOPIC, name)
    }
    # Inboxes are granted by `inbox_grant`, also where a Queue says how they are.
    queues = [each for each in declared.queues if each != WEBHOOK_QUEUE and not is_inbox(each)]
    consumed = [each for each in queues if allowed(Action.CONSUME, TargetKind.QUEUE, each)]
    used = [each for each in queues if each in consumed or allowed(Action.SUBMIT, TargetKind.QUEUE, each)]
    is_gateway = principal.role is Role.AGENT and principal.segments[1] in declared.gateways
    publish = [
        *(topic_subjects(each) for each in published),
        *_groups(principal, subscribed),
        *(each for queue in used for each in _submitting(queue)),
        *(each for queue in consumed for each in _consuming(queue)),
        *((queue_subjects(WEBHOOK_QUEUE),) if used or is_gateway else ()),
        *(_gateway(published, used) if is_gateway else ()),
        *_contexts(tenant_of(labels)),
    ]
    subscribe = [
        *(f"{SIGNALS}.*.{TASK_SIGNALS}.{each}.>" for each in used),
        *(each for queue in consumed for each in _cancellations(queue)),
    ]
    return MessageGrant(tuple(publish), tuple(subscribe))


def inbox_grant(principal: SpiffeId) -> MessageGrant:
    """The subjects of the inbox of the principal's type, and of what is kept beside its tasks.

    Agents may use that whatever policies say of queues, and nobody else is granted it. Whether there is one
    yet makes no difference: so nothing changes for them when they ask for it.
    """
    if principal.role is not Role.AGENT:
        return NO_MESSAGES
    agent_type = principal.segments[1]
    queue, records = inbox_queue(agent_type), f"{agent_type}.*"
    publish = (
        subject(A2A_TASKS_BUCKET, records),
        _read(A2A_TASKS_BUCKET, records),
        *_submitting(queue),
        *_consuming(queue),
    )
    return MessageGrant(publish, (f"{SIGNALS}.*.{TASK_SIGNALS}.{queue}.>", *_cancellations(queue)))


def _contexts(tenant: str) -> Iterator[str]:
    """Those of its own tenant, whoever it is: no policy speaks of them."""
    yield subject(CONTEXTS_BUCKET, tenant_keys(tenant))
    yield _read(CONTEXTS_BUCKET, tenant_keys(tenant))


def _submitting(queue: str) -> Iterator[str]:
    yield queue_subjects(queue)
    yield later_subjects(queue)
    # How many are delayed already is for who delays more to look at: see NatsBroker.enqueue.
    yield _info(later_stream(queue))
    yield subject(TASKS_BUCKET, f"{queue}.*")
    yield _read(TASKS_BUCKET, f"{queue}.*")
    yield _read(TASK_EVENTS_BUCKET, f"{queue}.>")
    for signals in (TASK_SIGNALS, CANCELLATION_SIGNALS):
        yield f"{MEMBER_SIGNALS}.{signals}.{queue}.>"


def _consuming(queue: str) -> Iterator[str]:
    for stream in (queue_stream(queue), later_stream(queue)):
        yield from (_next(stream, lane_consumer(lane)) for lane in LANES)
        yield _acknowledge(stream, _ANY)
    yield dead_subjects(queue)
    yield subject(TASK_EVENTS_BUCKET, f"{queue}.>")


def _cancellations(queue: str) -> Iterator[str]:
    """All of the queue's: a listener to everything below a key asks for the key itself too."""
    yield f"{SIGNALS}.*.{CANCELLATION_SIGNALS}.{queue}"
    yield f"{SIGNALS}.*.{CANCELLATION_SIGNALS}.{queue}.>"


def _groups(principal: SpiffeId, topics: Mapping[str, TopicSpec]) -> Iterator[str]:
    """To take for its own groups, and to put away what cannot be processed."""
    if principal.role is not Role.AGENT:
        return
    _, agent_type, instance = principal.segments
    groups = (type_group(agent_type), instance_group(agent_type, instance))
    consumers = [
        (topic_stream(name), consumer)
        for name, spec in topics.items()
        for group in groups
        for consumer in group_consumers(group, spec.partitions)
    ]
    if len(consumers) > MAX_CONSUMERS:
        consumers = sorted({(_ANY, consumer) for _, consumer in consumers})
    for stream, consumer in consumers:
        yield _next(stream, consumer)
        yield _acknowledge(stream, consumer)
    for name, spec in topics.items():
        yield _info(topic_stream(name))
        if spec.dead_letter is not None:
            yield from (topic_subject(spec.dead_letter, _ANY, f"{name}.{group}") for group in groups)


def _gateway(topics: Iterable[str], queues: Iterable[str]) -> Iterator[str]:
    yield from _consuming(WEBHOOK_QUEUE)
    yield later_subjects(WEBHOOK_QUEUE)
    streams = [
        *(stream_name(each) for each in (TASKS_BUCKET, TASK_EVENTS_BUCKET)),
        *(topic_stream(each) for each in topics),
        *(
            each(queue)
            for queue in (WEBHOOK_QUEUE, *queues)
            for each in (queue_stream, later_stream, dead_stream)
        ),
    ]
    yield from (_info(each) for each in streams)


def _info(stream: str) -> str:
    return f"{MEMBER_API}.STREAM.INFO.{stream}"


def _read(bucket: str, keys: str) -> str:
    return f"{MEMBER_API}.DIRECT.GET.{stream_name(bucket)}.{subject(bucket, keys)}"


def _next(stream: str, consumer: str) -> str:
    return f"{MEMBER_API}.CONSUMER.MSG.NEXT.{stream}.{consumer}"


def _acknowledge(stream: str, consumer: str) -> str:
    return f"$JS.ACK.{stream}.{consumer}.>"
