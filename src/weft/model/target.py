"""What a resource is about: a type of agent, or a capability."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from weft.model.spec import Name, Spec, TypeName


class Target(Spec):
    """Either all agents of a type, or all that offer a capability."""

    type: TypeName | None = None
    capability: Name | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.type is None) == (self.capability is None):
            raise ValueError("give either type or capability")
        return self

    def __str__(self) -> str:
        return f"type {self.type!r}" if self.type is not None else f"capability {self.capability!r}"
