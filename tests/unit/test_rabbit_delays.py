"""For how long a message waits at a stretch in RabbitMQ."""

from __future__ import annotations

import itertools
import random

from weft.messaging.broker import MAX_DELAY
from weft.messaging.brokers.rabbitmq_delays import SHORT, SHORTEST, level, working_level

_DELAYS = [random.Random(7).uniform(0, 10**power) for power in range(-2, 7) for _ in range(500)]


def test_a_short_delay_is_rounded_up_by_a_tenth_at_most() -> None:
    for delay in (each for each in _DELAYS if SHORTEST * 10 <= each * 1000 <= SHORT):
        assert delay * 1000 <= level(delay) <= delay * 1000 * 1.125 + 1


def test_a_long_delay_is_waited_for_in_steps_that_never_go_beyond_it() -> None:
    for delay in [each for each in _DELAYS if each * 1000 > SHORT] + [MAX_DELAY]:
        left, steps = delay, 0
        while left * 1000 > SHORT:
            step = level(left)
            assert left * 1000 / 1.6 <= step <= left * 1000 + 1
            left -= step / 1000
            steps += 1
        assert steps <= 30


def test_there_are_few_levels() -> None:
    assert len(set(map(level, itertools.chain(_DELAYS, [0.0, MAX_DELAY])))) <= 120


def test_where_a_level_does_not_work_one_beside_it_is_taken() -> None:
    for delay in _DELAYS:
        broken = level(delay)
        assert working_level(delay, lambda _: True) == broken
        assert working_level(delay, broken.__ne__) >= broken
        assert working_level(delay, lambda _: False) == broken
