"""What messages go through: a topic or a queue, by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from weft.model.names import check_name


class ChannelKind(StrEnum):
    """Which of the two it is."""

    TOPIC = "topic"
    QUEUE = "queue"

    @property
    def sending(self) -> str:
        """The action of an AccessPolicy that stands for putting messages in."""
        return "publish" if self is ChannelKind.TOPIC else "submit"

    @property
    def receiving(self) -> str:
        """The action of an AccessPolicy that stands for taking messages out."""
        return "subscribe" if self is ChannelKind.TOPIC else "consume"


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic or a queue. Making one raises InvalidRequest if its name is none. As a text: `topic/news`."""

    kind: ChannelKind
    name: str

    def __post_init__(self) -> None:
        check_name(self.name, str(self.kind))

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"
