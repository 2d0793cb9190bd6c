"""What users import is what was promised: a name less breaks their programs, a name more is a promise."""

from __future__ import annotations

import inspect

import weft
import weft.orchestration
import weft.testing

NAMES = {
    "Agent",
    "AgentError",
    "AgentFailed",
    "Change",
    "ChangeKind",
    "CloudEvent",
    "Conflict",
    "Context",
    "ContextLimits",
    "Conversation",
    "ConversationStore",
    "Denied",
    "InputRequired",
    "Instance",
    "Interrupted",
    "InvalidRequest",
    "LoopDetected",
    "Mesh",
    "MeshError",
    "NoHealthyAgent",
    "NoSuchAgent",
    "NotFound",
    "QueueFull",
    "RateLimited",
    "ReceivedEvent",
    "Refused",
    "Said",
    "Status",
    "Task",
    "TaskHandle",
    "TaskRun",
    "TaskState",
    "TimedOut",
    "TooMany",
    "Unauthenticated",
    "Unavailable",
    "current",
    "limits",
}

MEMBERS = {
    "Agent": {
        *("app", "asgi", "drain", "handles", "health", "on", "run", "serving", "settings", "streams", "task")
    },
    "ConversationStore": {
        *("about", "append", "artifact", "artifacts", "compare_and_set", "count", "delete", "headers", "id"),
        *("messages", "put_artifact", "remove_artifact", "state", "update"),
    },
    "Mesh": {
        *("aclose", "budget", "card", "cards", "context", "discover", "membership", "own_type"),
        *(
            "call_tool",
            "metrics",
            "publish",
            "request",
            "stream",
            "submit",
            "task",
            "tools",
            "metrics",
            "tracer",
            "transport",
            "watch",
        ),
    },
    "ReceivedEvent": {
        *("data", "deliveries", "event", "headers", "name", "sequence", "subtopic", "topic"),
    },
    "TaskHandle": {"cancel", "id", "result", "status", "updates"},
    "TaskRun": {
        *("attempt", "content_type", "deadline", "headers", "partial", "payload", "progress", "task"),
    },
    "TaskState": {"CANCELLED", "FAILED", "QUEUED", "RUNNING", "SUCCEEDED"},
}
"""What programs use of the names that have the most to them."""

ORCHESTRATION = {
    *("Branch", "BranchResult", "Count", "Discovered", "NoQuorum", "Option", "Outcome", "Partial", "Routed"),
    *("Step", "Undecided", "Verdict", "coordinate", "map_reduce", "pipeline", "route", "vote"),
}

ORCHESTRATED = {
    "Branch": {
        *("arguments", "budget", "fallback", "field", "idempotency_key", "kind", "label", "max_tokens"),
        *("model", "name", "prompt", "queue", "result_type", "stream", "temperature", "timeout", "to"),
        "weight",
    },
    "BranchResult": {
        *("branch", "error", "index", "instance", "ok", "replaced", "seconds", "task", "value"),
    },
    "Outcome": {"answers", "failures", "results", "seconds", "synthesis", "unneeded", "value"},
}

IN_MEMORY = {
    *("add", "asgi", "client", "drain", "events", "kill", "redrive", "set_status", "tasks"),
}


SIMULATED_LLM = {"behave", "requests", "reset", "stats", "url"}


def public(kind: type) -> set[str]:
    """The attributes of a class's instances that are everybody's."""
    source = inspect.getsource(kind)
    inside = {name for name in vars(kind) if not name.startswith("_")}
    return inside | {
        each.strip().removeprefix("self.").partition(" ")[0].rstrip(":").partition(":")[0]
        for each in source.splitlines()
        if each.startswith("        self.") and " = " in each and not each.strip().startswith("self._")
    }


def test_the_names_of_the_package_are_those_that_were_promised() -> None:
    assert weft.__all__ == sorted(NAMES)
    assert [name for name in NAMES if getattr(weft, name).__name__ != name] == []
    assert set(weft.testing.__all__) == {"InMemoryMesh", "QueueSpec", "SimulatedLLM", "TopicSpec"}


def test_the_names_of_orchestrations_are_those_that_were_promised() -> None:
    assert set(weft.orchestration.__all__) == ORCHESTRATION
    assert {name: public(getattr(weft.orchestration, name)) for name in ORCHESTRATED} == ORCHESTRATED


def test_what_the_most_used_names_have_is_what_was_promised() -> None:
    assert {name: public(getattr(weft, name)) - {"terminal"} for name in MEMBERS} == MEMBERS


def test_the_mesh_in_memory_has_what_was_promised() -> None:
    assert public(weft.testing.InMemoryMesh) == IN_MEMORY


def test_the_simulated_models_have_what_was_promised() -> None:
    assert public(weft.testing.SimulatedLLM) == SIMULATED_LLM


def test_the_public_errors_are_one_tree() -> None:
    errors = [each for name in NAMES if isinstance(each := getattr(weft, name), type)]
    outside = {each.__name__ for each in errors if issubclass(each, Exception)} - {
        "AgentError",
        "InputRequired",
    }
    assert all(issubclass(getattr(weft, name), weft.MeshError) for name in outside)
    assert len(outside) > 8
