"""How topics, queues and tasks are called in NATS: by streams, subjects, consumers, buckets and signals.

Who may do what in NATS is granted by these names, so whoever uses NATS for messages takes them from here.

| what | stream | subjects | consumers |
|---|---|---|---|
| queue `q` | `QUEUE_q` | `queues.q.<lane>` | `LANE_<lane>` |
| its delayed messages | `LATER_q` | `queues.q.later.<token>`, then `queues.q.due.<lane>` | `LANE_<lane>` |
| its dead letters | `DEAD_q` | `dead.q.<lane>` | none |
| topic `t` | `TOPIC_t` | `topics.t.<partition>`, `topics.t.<partition>.<subtopic>` | of each group |
| group `g` | | | `g`; in topics with partitions `g_<partition>` for each |

Delayed messages are in a stream of their own: NATS has no schedules in one that refuses what is too much.
"""

from __future__ import annotations

from weft.model.subtopic import ONLY_ROOT

LANES = (0, 1, 2)
"""The lanes of every queue, by priority."""

TASKS_BUCKET = "tasks"
"""Records of tasks: the key is the task's id, `<queue>.<token>`."""

TASK_EVENTS_BUCKET = "task-events"
"""What workers told: keys `<queue>.<token>.<attempt>-<number>`."""

TASK_SIGNALS = "tasks"
"""Signals that a task's record, or its events, changed; the key is the task's id."""

CANCELLATION_SIGNALS = "cancellations"
"""Signals that a task was cancelled; the key is the task's id."""

WEBHOOK_QUEUE = "weft-webhooks"
"""The queue of ends of tasks that webhooks are to be told. It is always there; no Queue may be called so."""


def queue_stream(queue: str) -> str:
    """The stream that holds a queue."""
    return f"QUEUE_{queue}"


def queue_subjects(queue: str) -> str:
    """All subjects of a queue's stream: its lanes."""
    return f"queues.{queue}.*"


def lane_subject(queue: str, lane: int) -> str:
    """Where messages of that priority go."""
    return f"queues.{queue}.{lane}"


def later_subject(queue: str, token: str) -> str:
    """Where a message waits for its time; `token` has neither dots nor wildcards."""
    return f"queues.{queue}.later.{token}"


def later_subjects(queue: str) -> str:
    """Where all messages wait for their time; publishing a delayed one needs the right to these subjects."""
    return later_subject(queue, "*")


def later_stream(queue: str) -> str:
    """The stream that holds what is, or was, delayed."""
    return f"LATER_{queue}"


def due_subject(queue: str, lane: int | str) -> str:
    """Where NATS puts a delayed message when its time has come; `*` stands for all lanes."""
    return f"queues.{queue}.due.{lane}"


def lane_consumer(lane: int) -> str:
    """The durable consumer of a lane, in both of a queue's streams. In upper case, as no group is."""
    return f"LANE_{lane}"


def dead_stream(queue: str) -> str:
    """The stream that holds a queue's dead letters."""
    return f"DEAD_{queue}"


def dead_subjects(queue: str) -> str:
    """All subjects of a queue's dead letters."""
    return f"dead.{queue}.>"


def dead_subject(queue: str, lane: int) -> str:
    """Where dead letters go that had that priority."""
    return f"dead.{queue}.{lane}"


def topic_stream(topic: str) -> str:
    """The stream that holds a topic."""
    return f"TOPIC_{topic}"


def topic_subjects(topic: str) -> str:
    """All subjects of a topic."""
    return f"topics.{topic}.>"


def topic_subject(topic: str, partition: int | str = 0, subtopic: str = "") -> str:
    """Where a message goes. In topics without partitions the partition is 0; `*` stands for all."""
    root = f"topics.{topic}.{partition}"
    return f"{root}.{subtopic}" if subtopic else root


def topic_filters(topic: str, pattern: str, partition: int = 0) -> list[str]:
    """The subjects of the messages in a partition whose subtopics `pattern` stands for.

    Empty: all of them, with and without a subtopic; `.`: those without.
    """
    root = topic_subject(topic, partition)
    if pattern == ONLY_ROOT:
        return [root]
    return [f"{root}.{pattern}"] if pattern else [root, f"{root}.>"]


def group_consumers(group: str, partitions: int) -> list[str]:
    """The durable consumers of a group, by partition; one in a topic without any (`partitions` is 0)."""
    return [f"{group}_{partition}" for partition in range(partitions)] if partitions else [group]


def type_group(agent_type: str) -> str:
    """The group whose messages one instance of the type gets each."""
    return agent_type


def instance_group(agent_type: str, instance: str) -> str:
    """The group of one instance, which gets every message. No name has an underscore."""
    return f"{agent_type}_{instance}"
