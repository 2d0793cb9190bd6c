"""What the status of an AgentDeployment says of its Deployment."""

from __future__ import annotations

from typing import Any

import pytest

from weft.kubernetes.controller.rollout import rollout_conditions, rollout_figures

AVAILABLE = {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}
GOOD = {
    "observedGeneration": 2,
    "replicas": 3,
    "updatedReplicas": 3,
    "readyReplicas": 3,
    "availableReplicas": 3,
    "conditions": [AVAILABLE],
}


def told(status: dict[str, Any], replicas: int | None = 3) -> dict[str, tuple[str, str, str]]:
    spec = {} if replicas is None else {"replicas": replicas}
    deployment = {"metadata": {"name": "summarizer", "generation": 2}, "spec": spec, "status": status}
    return {each.type: (each.status, each.reason, each.message) for each in rollout_conditions(deployment)}


def test_all_pods_as_declared_and_ready_is_good() -> None:
    conditions = told(GOOD)
    assert conditions["Ready"][:2] == ("True", "PodsReady")
    assert conditions["Progressing"][:2] == ("False", "RolledOut")
    assert rollout_figures({"status": GOOD}) == {"replicas": 3, "readyReplicas": 3, "updatedReplicas": 3}
    assert rollout_figures({}) == {"replicas": 0, "readyReplicas": 0, "updatedReplicas": 0}


def test_what_the_cluster_has_not_looked_at_is_not_known() -> None:
    for conditions in (told({}), told({**GOOD, "observedGeneration": 1})):
        assert conditions["Ready"][:2] == ("Unknown", "Waiting")
        assert conditions["Progressing"][:2] == ("True", "RollingOut")


@pytest.mark.parametrize(
    "status",
    [
        {"updatedReplicas": 2},
        {"replicas": 4},
        {"availableReplicas": 2},
    ],
)
def test_pods_that_are_still_to_be_made_anew_are_told(status: dict[str, int]) -> None:
    conditions = told({**GOOD, **status})
    assert conditions["Ready"][0] == "True"
    assert conditions["Progressing"][:2] == ("True", "RollingOut")


def test_pods_that_are_not_ready_are_counted() -> None:
    status, reason, message = told({**GOOD, "readyReplicas": 0, "conditions": []}, None)["Ready"]
    assert (status, reason) == ("False", "PodsNotReady")
    assert message.startswith("0 of 1 pods are ready: `kubectl describe pods -l app.kubernetes.io/name=summ")


def test_what_keeps_pods_from_being_made_is_told_in_the_clusters_words() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}
    assert told({**GOOD, "conditions": [AVAILABLE, failure]})["Ready"] == ("False", "FailedCreate", "quota")
    stuck = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    conditions = told({**GOOD, "updatedReplicas": 1, "conditions": [AVAILABLE, stuck]})
    assert conditions["Progressing"][:2] == ("False", "ProgressDeadlineExceeded")
