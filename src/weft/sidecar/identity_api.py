"""The control plane's endpoints for identities, as a sidecar uses them."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.errors import Denied, InvalidRequest, MeshError, NotFound, Unauthenticated, Unavailable
from weft.identity.bundle import TrustBundles
from weft.identity.svid import Svid, parse_svid
from weft.identity.tls import check_role, client_context
from weft.model.node import Address
from weft.model.spiffe import Role
from weft.sidecar.http import JSON, Answer, BadAnswer, exchange, why

MAX_ANSWER_BYTES = 1024 * 1024
TIMEOUT = 10.0
"""Seconds that one replica has to answer."""

_OUT_OF_TIME = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED

_ERRORS: Mapping[str, type[MeshError]] = {
    each.code: each for each in (InvalidRequest, Unauthenticated, Denied, NotFound, Unavailable)
}


@dataclass(frozen=True, slots=True)
class Issued:
    """What the control plane gives to whom has proved who it is."""

    svid: Svid
    bundles: TrustBundles
    nats_roots: bytes
    """PEM of the authorities below which NATS's own certificate is verified; empty: NATS is without TLS."""


@dataclass(frozen=True, slots=True)
class Content:
    """The body of a request."""

    data: bytes
    media_type: str = JSON


class IdentityApi:
    """The API's replicas; any of them will do.

    Every method raises Unavailable if none answers, Unauthenticated or Denied if one says no.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def enrol(
        self, csr: bytes, *, attestor: str, evidence: str, instance: str, trust: TrustBundles
    ) -> Issued:
        """A first SVID for the key of `csr`, for whom `evidence` proves to `attestor`."""
        body = {"csr": csr.decode(), "attestor": attestor, "evidence": evidence, "instance": instance}
        return _issued(await self._ask("POST", "/v1/identity", trust, body=body))

    async def renew(self, csr: bytes, *, credentials: Path, trust: TrustBundles) -> Issued:
        """A further SVID for the holder of `credentials` (a PEM file)."""
        body = {"csr": csr.decode()}
        answer = await self._ask("POST", "/v1/identity/renewal", trust, body=body, credentials=credentials)
        return _issued(answer)

    async def bundles(self, trust: TrustBundles) -> TrustBundles:
        """What is to be trusted now."""
        return TrustBundles.from_json(await self._ask("GET", "/v1/trust-bundles", trust))

    async def ask(
        self,
        method: str,
        target: str,
        trust: TrustBundles,
        *,
        body: Mapping[str, Any] | None,
        credentials: Path,
    ) -> Any:
        """What the API answers the holder of `credentials`, as JSON types. Raises what it says, too."""
        content = await self._ask(method, target, trust, body=body, credentials=credentials)
        try:
            return json.loads(content)
        except ValueError as error:
            raise Unavailable("the control plane's answer is no JSON") from error

    async def post(
        self, target: str, trust: TrustBundles, content: bytes, media_type: str, *, credentials: Path
    ) -> None:
        """POST what is no JSON. Raises what the API says to it."""
        await self._exchanged("POST", target, trust, Content(content, media_type), credentials)

    async def _ask(
        self,
        method: str,
        target: str,
        trust: TrustBundles,
        *,
        body: Mapping[str, Any] | None = None,
        credentials: Path | None = None,
    ) -> bytes:
        content = Content(json.dumps(body).encode()) if body is not None else None
        return await self._exchanged(method, target, trust, content, credentials)

    async def _exchanged(
        self,
        method: str,
        target: str,
        trust: TrustBundles,
        content: Content | None,
        credentials: Path | None,
    ) -> bytes:
        # Replicas have names of their own: it is their role in the mesh that is verified.
        context = client_context(trust.own.pem, credentials, check_hostname=False)
        problems = []
        for address in random.sample(self._addresses, len(self._addresses)):
            try:
                async with asyncio.timeout(TIMEOUT):
                    answer = await _exchange(address, context, trust, method, target, content)
            except TimeoutError:
                problems.append(f"{address}: no answer within {TIMEOUT:g} s")
            except ssl.SSLCertVerificationError as error:
                hint = "; see whether clocks agree" if error.verify_code in _OUT_OF_TIME else ""
                problems.append(f"{address}: its certificate is refused ({error.verify_message}{hint})")
            except ssl.SSLError as error:
                problems.append(f"{address}: TLS failed ({error.reason or error})")
            except OSError as error:
                problems.append(f"{address}: {why(error)}")
            except BadAnswer as error:
                problems.append(f"{address}: {error}")
            else:
                return _content(answer, address)
        raise Unavailable(f"the control plane's API does not answer ({'; '.join(problems)})")


async def _exchange(
    address: Address,
    context: ssl.SSLContext,
    trust: TrustBundles,
    method: str,
    target: str,
    content: Content | None,
) -> Answer:
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    try:
        check_role(writer.get_extra_info("ssl_object"), trust.own.trust_domain, Role.CONTROL)
    except Unauthenticated:
        writer.close()
        raise
    return await exchange(
        reader,
        writer,
        target,
        method=method,
        host=str(address),
        json=content.data if content is not None else None,
        media_type=content.media_type if content is not None else JSON,
        max_body=MAX_ANSWER_BYTES,
    )


def _content(answer: Answer, address: Address) -> bytes:
    if answer.ok:
        return answer.body
    try:
        detail = str(json.loads(answer.body)["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"it answers {answer.status}"
    raise _ERRORS.get(answer.error, Unavailable)(f"the control plane at {address} says: {detail}")


def _issued(content: bytes) -> Issued:
    try:
        fields = json.loads(content)
        return Issued(
            parse_svid(fields["chain"].encode("ascii")),
            TrustBundles.from_json(json.dumps(fields["bundles"])),
            fields["natsRoots"].encode("ascii"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"the control plane's answer holds no identity: {error!r}") from error
