"""Who gets which identity, by which proof."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from tests.cluster import ISSUER, Cluster

from weft.controlplane.ca.authority import Authority
from weft.controlplane.enrolment import Applicant, Enrolment
from weft.controlplane.identities import Identities
from weft.controlplane.join_tokens import JoinTokens
from weft.controlplane.pods import PodAdmission
from weft.controlplane.sealing import Sealer
from weft.controlplane.service_accounts import ServiceAccounts
from weft.errors import Denied, InvalidRequest, NotFound, Unauthenticated
from weft.identity.keys import new_key, signing_request
from weft.identity.svid import verify_svid
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, agent_id, operator_id
from weft.store.memory import MemoryStore

EDITOR = agent_id(DEFAULT_TRUST_DOMAIN, "editor", "editor-0")


class Mesh:
    """An authority, and those who may ask it."""

    def __init__(self, authority: Authority, identities: Identities, tokens: JoinTokens) -> None:
        self.authority = authority
        self.identities = identities
        self.tokens = tokens
        self.enrolment = Enrolment(authority, identities, {"join-token": tokens})

    async def token(
        self, agent_type: str | None = "editor", instance: str = "editor-0", **options: Any
    ) -> str:
        made = await self.tokens.invite(
            agent_type=agent_type, instance=instance, operator="alice", labels={"team": "a"}, **options
        )
        return made.token


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    store = MemoryStore()
    async with (
        Authority.open(store, Sealer([b"k" * 32])) as authority,
        Identities.follow(store) as identities,
    ):
        yield Mesh(authority, identities, await JoinTokens.open(store, DEFAULT_TRUST_DOMAIN))


def csr() -> bytes:
    return signing_request(new_key(), None)


def applicant(token: str, instance: str = "editor-0") -> Applicant:
    return Applicant("join-token", token, instance)


async def test_the_bearer_of_a_join_token_gets_the_identity_that_the_token_is_for(mesh: Mesh) -> None:
    svid = await mesh.enrolment.enrol(csr(), applicant(await mesh.token()))
    assert svid.id == EDITOR
    assert verify_svid(svid, mesh.authority.bundles, now=time.time()) == EDITOR
    known = await mesh.identities.identity(EDITOR)
    assert known is not None
    assert known.serial == svid.serial
    assert known.labels == {"team": "a"}
    assert known.attested_by == "operator/alice"


async def test_a_token_without_a_type_makes_its_bearer_act_for_the_operator(mesh: Mesh) -> None:
    svid = await mesh.enrolment.enrol(csr(), applicant(await mesh.token(None, "door"), "door"))
    assert svid.id == operator_id(DEFAULT_TRUST_DOMAIN, "alice", "door")


async def test_a_join_token_is_good_once_even_for_two_at_the_same_moment(mesh: Mesh) -> None:
    token = await mesh.token()
    results = await asyncio.gather(
        *(mesh.enrolment.enrol(csr(), applicant(token)) for _ in range(5)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in results) == ["Svid", *["Unauthenticated"] * 4]
    with pytest.raises(Unauthenticated, match="used before"):
        await mesh.enrolment.enrol(csr(), applicant(token))


async def test_whoever_asks_in_another_s_name_is_refused_and_the_token_is_spent(mesh: Mesh) -> None:
    token = await mesh.token()
    with pytest.raises(Denied, match="editor-1"):
        await mesh.enrolment.enrol(csr(), applicant(token, "editor-1"))
    with pytest.raises(Unauthenticated):
        await mesh.enrolment.enrol(csr(), applicant(token))


async def test_a_csr_that_names_another_identity_is_refused(mesh: Mesh) -> None:
    other = signing_request(new_key(), agent_id(DEFAULT_TRUST_DOMAIN, "editor", "editor-7"))
    with pytest.raises(Denied, match="editor-7"):
        await mesh.enrolment.enrol(other, applicant(await mesh.token()))


@pytest.mark.parametrize("evidence", ["", "weft_join_", "weft_join_" + "a" * 43, "x" * 10_000])
async def test_what_is_no_join_token_proves_nothing(mesh: Mesh, evidence: str) -> None:
    with pytest.raises(Unauthenticated):
        await mesh.enrolment.enrol(csr(), applicant(evidence))


async def test_requests_that_make_no_sense_are_told_so(mesh: Mesh) -> None:
    with pytest.raises(InvalidRequest, match="no attestor 'tarot'"):
        await mesh.enrolment.enrol(csr(), Applicant("tarot", "", "editor-0"))
    with pytest.raises(InvalidRequest):
        await mesh.enrolment.enrol(b"-----BEGIN NOTHING-----", applicant(await mesh.token()))
    with pytest.raises(InvalidRequest, match="bytes"):
        await mesh.enrolment.enrol(b"x" * 20_000, applicant(await mesh.token()))
    with pytest.raises(InvalidRequest, match="lives"):
        await mesh.token(lifetime=1e9)


async def test_a_holder_renews_its_own_identity_and_keeps_what_was_attested(mesh: Mesh) -> None:
    first = await mesh.enrolment.enrol(csr(), applicant(await mesh.token()))
    second = await mesh.enrolment.renew(csr(), EDITOR)
    assert (second.id, second.serial != first.serial) == (EDITOR, True)
    known = await mesh.identities.identity(EDITOR)
    assert known is not None
    assert (known.serial, known.labels) == (second.serial, {"team": "a"})


async def test_nobody_renews_what_was_never_given_or_is_another_domain_s(mesh: Mesh) -> None:
    with pytest.raises(Unauthenticated, match="enrol anew"):
        await mesh.enrolment.renew(csr(), EDITOR)
    with pytest.raises(Denied, match="another trust domain"):
        await mesh.enrolment.renew(csr(), agent_id("elsewhere.example", "editor", "editor-0"))


async def test_a_revoked_identity_is_neither_renewed_nor_given_again_until_it_is_restored(mesh: Mesh) -> None:
    await mesh.enrolment.enrol(csr(), applicant(await mesh.token()))
    seen = mesh.identities.followed[1].generation
    await mesh.identities.revoke(EDITOR, by="operator/alice", reason="stolen laptop")
    await mesh.identities.followed[1].changed_since(seen)
    with pytest.raises(Denied, match="revoked"):
        await mesh.enrolment.renew(csr(), EDITOR)
    with pytest.raises(Denied, match="revoked"):
        await mesh.enrolment.enrol(csr(), applicant(await mesh.token()))
    seen = mesh.identities.followed[1].generation
    await mesh.identities.restore(EDITOR)
    await mesh.identities.followed[1].changed_since(seen)
    await mesh.enrolment.enrol(csr(), applicant(await mesh.token()))
    with pytest.raises(NotFound):
        await mesh.identities.restore(EDITOR)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


async def test_a_pod_is_the_instance_and_its_service_account_the_type(cluster: Cluster) -> None:
    pods = ServiceAccounts(PodAdmission(DEFAULT_TRUST_DOMAIN), issuer=ISSUER, keys=cluster.keys)
    attested = await pods.attest(cluster.token(), instance="editor-0")
    assert attested.id == EDITOR
    assert attested.labels == {"namespace": "crew"}
    with pytest.raises(Denied):
        await pods.attest(cluster.token(), instance="editor-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["somebody-else"]},
        {"iss": "https://other.example"},
        {"exp": 1.0},
        {"exp": None},
        {"kid": "two"},
        {"kubernetes.io": {"namespace": "crew", "serviceaccount": {"name": "editor"}}},
        {"kubernetes.io": "crew"},
    ],
    ids=str,
)
async def test_service_account_tokens_that_prove_nothing_are_refused(
    cluster: Cluster, changes: dict[str, Any]
) -> None:
    pods = ServiceAccounts(PodAdmission(DEFAULT_TRUST_DOMAIN), issuer=ISSUER, keys=cluster.keys)
    with pytest.raises(Unauthenticated):
        await pods.attest(cluster.token(**changes), instance="editor-0")


async def test_a_service_account_token_signed_by_another_or_by_nobody_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    pods = ServiceAccounts(PodAdmission(DEFAULT_TRUST_DOMAIN), issuer=ISSUER, keys=cluster.keys)
    (tmp_path / "other").mkdir()
    unsigned = jwt.encode({"iss": ISSUER}, "", algorithm="none", headers={"kid": "one"})
    for token in (Cluster(tmp_path / "other").token(), unsigned, "nonsense", ""):
        with pytest.raises(Unauthenticated):
            await pods.attest(token, instance="editor-0")
