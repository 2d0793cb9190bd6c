"""Who looks at the dashboard."""

from __future__ import annotations

from dataclasses import dataclass, field

from weft.model.operator import Scope, token_hash


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person who has shown a token."""

    token: str = field(repr=False)
    name: str
    scope: Scope
    mesh: str
    """The trust domain of the mesh that is looked at."""
    address: str = field(default="", compare=False)
    """Where the browser is."""

    @property
    def key(self) -> str:
        """Stands for the token, and tells nothing of it."""
        return token_hash(self.token)

    def may(self, scope: Scope) -> bool:
        """Whether the API lets this viewer do what `scope` is needed for."""
        return self.scope.includes(scope)
