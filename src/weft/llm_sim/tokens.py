"""The simulator's tokenizer: four characters are a token, whatever they are; a rest of less is one more."""

from __future__ import annotations

from typing import Final

TOKEN_CHARACTERS: Final = 4
"""Characters (code points) in a token."""

MESSAGE_TOKENS: Final = 4
"""Tokens that every message of a chat costs beside its text."""

IMAGE_TOKENS: Final = 85
"""Tokens that every part of a message costs that is not text."""


def count(text: str) -> int:
    """How many tokens `text` has."""
    return -(-len(text) // TOKEN_CHARACTERS)


def pieces(text: str) -> list[str]:
    """The tokens of `text`."""
    return [text[at : at + TOKEN_CHARACTERS] for at in range(0, len(text), TOKEN_CHARACTERS)]
