"""The control plane's own identity: each replica is signed by the authority that it is part of."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import time
from collections.abc import Callable, Collection

from weft.aio.backoff import backoff
from weft.controlplane.ca.authority import Authority
from weft.errors import MeshError
from weft.identity.keys import key_pem, new_key, signing_request
from weft.identity.svid import Svid
from weft.model.spiffe import control_id

logger = logging.getLogger(__name__)

_JITTER = 0.1


class OwnIdentity:
    """A replica's certificate and key, renewed at half life and whenever the authority changes."""

    def __init__(self, authority: Authority, replica: str, hosts: Collection[str]) -> None:
        """`hosts` are the names and addresses by which API clients call this replica.

        Raises InvalidRequest where `replica` is no name, Unavailable if the authority cannot sign now.
        """
        self._authority = authority
        self._id = control_id(authority.trust_domain, replica)
        self._names = [host for host in hosts if not _is_address(host)]
        self._addresses = [host for host in hosts if _is_address(host)]
        self._signed_at = authority.generation
        self._sign()

    @property
    def held(self) -> tuple[Svid, bytes]:
        """Who this replica is now, and the private key (PEM) that goes with it. Any thread may ask."""
        return self._held

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep it valid until cancelled; `changed` is called after every renewal."""
        while True:
            await self._until_due()
            for pause in backoff():
                self._signed_at = self._authority.generation
                try:
                    self._sign()
                    break
                except MeshError as error:
                    logger.error("the control plane cannot renew its identity: %s", error.detail)  # noqa: TRY400
                await asyncio.sleep(pause)
            changed()

    async def _until_due(self) -> None:
        half_life = (self._held[0].not_after - time.time()) / 2
        jitter = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 -- spreads load, hides nothing
        try:
            async with asyncio.timeout(max(0.0, half_life * jitter)):
                await self._authority.changed_since(self._signed_at)
        except TimeoutError:
            return

    def _sign(self) -> None:
        key = new_key()
        request = signing_request(key, self._id)
        svid = self._authority.sign(request, self._id, dns_names=self._names, ip_addresses=self._addresses)
        self._held = (svid, key_pem(key))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
