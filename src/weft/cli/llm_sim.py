"""`weft llm-sim`: this process becomes a simulated provider of models."""

from __future__ import annotations

from typing import NoReturn

from weft.cli.processes import Passed, become


def llm_sim(*arguments: Passed) -> NoReturn:
    """Run a simulated provider of models, with OpenAI's API. `weft llm-sim --help` lists its options."""
    become("weft.llm_sim", arguments)
