"""How many workers a queue needs: a number for autoscalers.

Little's law (J. D. C. Little, "A Proof for the Queuing Formula: L = λW", Operations Research 9(3), 1961): in
a stable system the mean number of tasks under way is their arrival rate times the mean time that one takes. A
worker has `concurrency` places, so keeping up takes

    arrival rate * service time / concurrency

workers. Keeping up leaves a backlog as it is, so the tasks that wait are added to the arrivals, spread over
the time in which they are to be gone: the target age. A backlog younger than that is not pressing yet, and
counts in proportion to its age; one that is older counts in full, so that it is gone one target age from now.
"""

from __future__ import annotations

import math

TARGET_AGE = 30.0
"""Seconds that tasks may wait, unless a caller says otherwise."""


def desired_workers(
    arrival_rate: float,
    service_time: float,
    concurrency: int,
    oldest_age: float | None,
    waiting: int,
    *,
    target_age: float = TARGET_AGE,
) -> int:
    """How many workers a queue needs, in whole ones; 0 if nothing arrives and nothing waits.

    `arrival_rate` is in tasks a second; `service_time` is how many seconds a worker takes for one attempt, on
    the average; `concurrency` how many one works on at once; `oldest_age` how many seconds the oldest task
    has waited, None if there is none; `waiting` how many do. Limits are the caller's to apply. Raises
    ValueError for figures that make no sense.
    """
    figures = (arrival_rate, service_time, oldest_age or 0.0)
    if concurrency < 1 or waiting < 0 or target_age <= 0 or not all(0 <= each < math.inf for each in figures):
        raise ValueError(
            "rates, times and counts are not negative, and finite; concurrency and target_age positive"
        )
    urgency = min(1.0, (oldest_age or 0.0) / target_age)
    rate = arrival_rate + urgency * waiting / target_age
    needed = rate * service_time / concurrency
    # What waits is work for somebody, however short it takes; and 2.0000000001 are two.
    return max(math.ceil(needed - 1e-9), 1 if waiting or arrival_rate else 0)
