"""With what a caller verifies the webhooks of its tasks."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from weft.errors import Denied
from weft.gateway.caller import Outsider
from weft.gateway.parts import CurrentCaller, CurrentGateway
from weft.gateway.strict_json import Body, JsonAnswer
from weft.gateway.submission import PROBLEMS

router = APIRouter(prefix="/v1/webhook-secret", tags=["webhooks"], responses=PROBLEMS)


class WebhookSecret(Body):
    """A secret as in Standard Webhooks."""

    submitter: str
    """Whose it is: the caller."""
    secret: str
    """`whsec_` and 32 bytes in base64."""


@router.get("", response_class=JsonAnswer, responses={200: {"model": WebhookSecret}})
async def show(gateway: CurrentGateway, caller: CurrentCaller) -> Response:
    """The caller's secret: the webhooks of its tasks are signed with it, as in Standard Webhooks."""
    if isinstance(caller, Outsider) and caller.anonymous:
        raise Denied("callers without a key or token have no secret: whoever asks would be told it")
    secret = gateway.parts.signer.secret_of(caller.submitter)
    return JsonAnswer(
        {"submitter": caller.submitter, "secret": secret}, headers={"cache-control": "no-store"}
    )
