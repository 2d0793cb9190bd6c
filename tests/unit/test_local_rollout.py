"""From the replicas there are to the replicas there should be, step by step."""

from __future__ import annotations

from dataclasses import replace

from weft.local.rollout import Replica, Start, Stop, next_step


def _all_steps(replicas: list[Replica], wanted: int, *, surge: bool = True) -> list[Start | Stop]:
    """Every step until nothing is left to do, as if what is started became healthy at once."""
    steps: list[Start | Stop] = []
    while (step := next_step(replicas, wanted, surge=surge)) is not None:
        steps.append(step)
        if isinstance(step, Start):
            replicas = [*replicas, Replica(step.index, current=True, healthy=True)]
        else:
            replicas = [each for each in replicas if each.index != step.index]
        assert len(steps) < 100, "it never ends"
    return steps


def _old(index: int, *, healthy: bool = True) -> Replica:
    return Replica(index, current=False, healthy=healthy)


def _new(index: int, *, healthy: bool = True) -> Replica:
    return Replica(index, current=True, healthy=healthy)


def test_what_is_declared_is_started() -> None:
    assert _all_steps([], 3) == [Start(1), Start(2), Start(3)]


def test_what_runs_as_declared_is_left_alone() -> None:
    assert next_step([_new(1), _new(2, healthy=False)], 2, surge=True) is None


def test_fewer_replicas_stop_the_last_ones() -> None:
    assert _all_steps([_new(1), _new(2), _new(3)], 1) == [Stop(3), Stop(2)]


def test_a_deleted_agent_stops() -> None:
    assert _all_steps([_new(1), _old(2)], 0) == [Stop(2), Stop(1)]


def test_a_gap_is_filled_with_the_lowest_number() -> None:
    assert next_step([_new(2)], 2, surge=True) == Start(1)


def test_a_replica_that_is_stopping_keeps_its_number() -> None:
    assert next_step([replace(_new(1), stopping=True)], 1, surge=True) == Start(2)


def test_a_changed_agent_is_replaced_one_by_one_new_before_old() -> None:
    assert _all_steps([_old(1), _old(2)], 2) == [Start(3), Stop(1), Start(1), Stop(2)]


def test_an_old_replica_stays_until_the_new_one_is_healthy() -> None:
    assert next_step([_old(1), _new(2, healthy=False)], 1, surge=True) is None


def test_old_replicas_that_serve_nobody_are_not_waited_for() -> None:
    assert next_step([_old(1, healthy=False), _old(2)], 2, surge=True) == Stop(1)


def test_there_are_never_fewer_healthy_replicas_than_wanted_while_they_are_replaced() -> None:
    replicas = [_old(index) for index in (1, 2, 3)]
    while (step := next_step(replicas, 3, surge=True)) is not None:
        if isinstance(step, Start):
            replicas.append(_new(step.index))
        else:
            replicas = [each for each in replicas if each.index != step.index]
        assert len(replicas) in {3, 4}


def test_without_surge_the_old_one_is_gone_before_the_new_one_starts() -> None:
    assert next_step([_old(1)], 1, surge=False) == Stop(1)
    assert next_step([replace(_old(1), stopping=True)], 1, surge=False) is None
    assert next_step([], 1, surge=False) == Start(1)


def test_without_surge_the_next_one_waits_until_the_last_is_healthy() -> None:
    assert next_step([_old(1), _new(2, healthy=False)], 2, surge=False) is None
    assert next_step([_old(1), _new(2)], 2, surge=False) == Stop(1)
