"""What the simulator is started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from weft.llm_sim.behaviour import Behaviour
from weft.model.local_state import LOOPBACK

DEFAULT_PORT = 9400

KEY_VARIABLE = "WEFT_LLM_SIM_KEY"
"""Environment variable: a key that the simulator asks for."""


@dataclass(frozen=True, slots=True)
class SimSettings:
    """Of one process."""

    host: str = LOOPBACK
    port: int = DEFAULT_PORT
    """0: any free one."""
    seed: int = 0
    """Decides all that is left to chance."""
    record: int = 0
    """Requests that `GET /sim/requests` shows."""
    stop_with_stdin: bool = False
    """Whether it ends when its standard input does: with whoever started it."""
    behaviour: Behaviour = field(default_factory=Behaviour)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Keys it takes, by their names in counters; none: it asks for none."""
