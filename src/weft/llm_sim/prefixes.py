"""The simulated prefix cache: how much of a prompt has been seen before. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b

from weft.llm_sim.tokens import TOKEN_CHARACTERS

BLOCK_TOKENS = 64
"""Prompts are remembered in blocks of so many tokens; what is shorter is not remembered."""

MAX_BLOCKS = 65_536
"""Blocks that are remembered: those not seen for longest are forgotten."""

_BLOCK = BLOCK_TOKENS * TOKEN_CHARACTERS


class PrefixCache:
    """The beginnings of prompts, each block known by all that comes before it."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[bytes, None] = OrderedDict()

    def visit(self, model: str, prompt: str) -> int:
        """How many tokens of `prompt` are in the cache; from now on all its whole blocks are."""
        if len(prompt) < _BLOCK:
            return 0
        cached, unbroken = 0, True
        for key in _keys(model, prompt):
            unbroken = unbroken and key in self._blocks
            cached += BLOCK_TOKENS if unbroken else 0
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        while len(self._blocks) > MAX_BLOCKS:
            self._blocks.popitem(last=False)
        return cached

    def clear(self) -> None:
        """Forget all."""
        self._blocks.clear()


def _keys(model: str, prompt: str) -> Iterator[bytes]:
    chain = blake2b(model.encode("utf-8", "surrogatepass"), digest_size=16)
    for at in range(0, len(prompt) - _BLOCK + 1, _BLOCK):
        chain.update(prompt[at : at + _BLOCK].encode("utf-8", "surrogatepass"))
        yield chain.digest()
