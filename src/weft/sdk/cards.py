"""The catalogue of A2A agents, as the control plane's API has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, ValidationError

from weft.errors import Unavailable
from weft.model.names import check_type
from weft.sdk.destination import CONTROL_HOST
from weft.sdk.transport import Call
from weft.sdk.wire import JSON

CARDS_PATH = "/v1/cards"

PAGE_SIZE = 50
"""Cards in one answer."""


class ListedCard(BaseModel):
    """An agent type that has an A2A card."""

    model_config = ConfigDict(frozen=True)

    type: str
    card: dict[str, Any]
    """As A2A has it (1.0 or 0.3); its URLs lead to the agent, through the sidecar of who asks."""
    instances: int = 0
    """How many instances offer it."""
    healthy: int = 0
    """How many of them get calls."""


class CardPage(BaseModel):
    """One page of the catalogue."""

    items: list[ListedCard]
    next: str | None = None
    """What to ask for with `after`; None on the last page."""


def searching(text: str, skill: str | Iterable[str], tag: str | Iterable[str], size: int, after: str) -> Call:
    """A request for one page of the cards that match."""
    parameters = [("q", text)] if text else []
    parameters += [("skill", each) for each in ([skill] if isinstance(skill, str) else skill)]
    parameters += [("tag", each) for each in ([tag] if isinstance(tag, str) else tag)]
    parameters += [("limit", str(size)), *([("after", after)] if after else [])]
    return Call("GET", CONTROL_HOST, f"{CARDS_PATH}?{urlencode(parameters)}", {"accept": JSON})


def looking_up(agent_type: str) -> Call:
    """A request for the card of one type. Raises InvalidRequest for what is none."""
    return Call("GET", CONTROL_HOST, f"{CARDS_PATH}/{quote(check_type(agent_type))}", {"accept": JSON})


def read_card_page(body: bytes) -> CardPage:
    """The page that `body` holds. Raises Unavailable if it holds none."""
    try:
        return CardPage.model_validate_json(body)
    except ValidationError as error:
        raise Unavailable(f"the control plane's catalogue of cards makes no sense: {error}") from error


def read_listed_card(body: bytes) -> ListedCard:
    """The card that `body` holds. Raises Unavailable if it holds none."""
    try:
        return ListedCard.model_validate_json(body)
    except ValidationError as error:
        raise Unavailable(f"the control plane's answer about a card makes no sense: {error}") from error
