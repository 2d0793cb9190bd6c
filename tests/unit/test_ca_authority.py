"""The certificate authority: what it signs, and how replicas share it through a store in memory."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
from collections.abc import AsyncIterator, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.clock import Clock
from tests.pki import Pki

from weft.aio.poll import until
from weft.controlplane.ca.authority import Authority
from weft.controlplane.ca.lifetimes import Lifetimes
from weft.controlplane.ca.rotation import Level
from weft.controlplane.ca.shared_state import BUCKET, KEY
from weft.controlplane.sealing import SealBroken, Sealer
from weft.errors import Conflict, Denied, InvalidRequest, NotFound
from weft.identity.keys import new_key, signing_request
from weft.identity.svid import check_leaf, parse_svid, verify_svid
from weft.model.spiffe import SpiffeId, agent_id, control_id
from weft.store.bucket import Bucket
from weft.store.memory import MemoryStore

ME = agent_id("weft.local", "worker", "w1")
SEALING_KEY = os.urandom(32)
SEALER = Sealer([SEALING_KEY])


class _Raw:
    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    yield store
    await store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def authority(store: MemoryStore, clock: Clock) -> AsyncIterator[Authority]:
    async with Authority.open(store, SEALER, clock=clock) as authority:
        yield authority


async def _raw(store: MemoryStore) -> Bucket[bytes]:
    return await store.bucket(BUCKET, _Raw())


async def _agree(*authorities: Authority) -> None:
    async def agreed() -> bool:
        return len({each.status for each in authorities}) == 1

    async with asyncio.timeout(30):
        await until(agreed)


def _request(*uris: str, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    names: Sequence[x509.GeneralName] = [
        x509.DNSName("evil.example"),
        *(x509.UniformResourceIdentifier(each) for each in uris),
    ]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key or new_key(), hashes.SHA256()).public_bytes(Encoding.PEM)


async def test_an_svid_is_exactly_what_the_standard_says(authority: Authority, clock: Clock) -> None:
    key = new_key()
    svid = authority.sign(signing_request(key, ME), ME)
    leaf = svid.leaf
    assert check_leaf(leaf) == ME
    assert leaf.public_key() == key.public_key()
    assert not list(leaf.subject)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier(str(ME))]
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= datetime.timedelta(seconds=3660)
    assert svid.not_after == clock.now + 3600
    assert len(svid.chain) == 2
    assert authority.bundles.own.certificates[0] not in svid.chain
    assert verify_svid(parse_svid(svid.chain_pem), authority.bundles, now=clock.now) == ME


async def test_authorities_are_what_the_standard_says(authority: Authority) -> None:
    svid = authority.sign(signing_request(new_key()), ME)
    for certificate, path_length in ((authority.bundles.own.certificates[0], 1), (svid.chain[1], 0)):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=path_length)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        assert usage.key_cert_sign
        assert usage.crl_sign
        assert not usage.digital_signature
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.UniformResourceIdentifier("spiffe://weft.local")]
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)


async def test_the_authority_decides_who_it_is_never_the_requester(authority: Authority) -> None:
    assert authority.sign(_request(), ME).id == ME
    svid = authority.sign(_request(str(ME)), ME)
    names = svid.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "evil.example" not in names.get_values_for_type(x509.DNSName)
    for uris in (
        ["spiffe://weft.local/control/c1"],
        [str(ME), "spiffe://weft.local/control/c1"],
        ["https://weft.local"],
        [str(ME) + "/"],
    ):
        with pytest.raises(Denied, match="the authority decides"):
            authority.sign(_request(*uris), ME)
    for foreign in (agent_id("b.example", "worker", "w1"), SpiffeId("weft.local")):
        with pytest.raises(Denied, match="not for the authority"):
            authority.sign(_request(), foreign)


async def test_a_request_that_is_none_is_refused(authority: Authority) -> None:
    good = _request()
    der = x509.load_pem_x509_csr(good).public_bytes(Encoding.DER)
    forged = bytearray(der)
    forged[-1] ^= 1
    weak = _request(key=ec.generate_private_key(ec.SECP256K1()))
    for request in (b"", b"garbage", good + good, good + b" " * 20_000, der, _pem(bytes(forged)), weak):
        with pytest.raises(InvalidRequest):
            authority.sign(request, ME)
    for position in range(len(der)):
        changed = bytearray(der)
        changed[position] ^= 0x41
        with pytest.raises((InvalidRequest, Denied)):
            authority.sign(_pem(bytes(changed)), ME)


async def test_a_control_plane_has_names_and_addresses_for_its_clients(authority: Authority) -> None:
    me = control_id("weft.local", "c1")
    svid = authority.sign(
        _request(), me, dns_names=["control.example"], ip_addresses=["127.0.0.1"], lifetime=60
    )
    names = svid.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["control.example"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert svid.not_after == authority.sign(_request(), me).not_after - 3540
    assert authority.sign(_request(), me, lifetime=1e9).not_after == authority.sign(_request(), me).not_after
    for dns_name, address in (("ü.example", "127.0.0.1"), ("control.example", "300.1.1.1")):
        with pytest.raises(InvalidRequest):
            authority.sign(_request(), me, dns_names=[dns_name], ip_addresses=[address])
    with pytest.raises(InvalidRequest, match="at most 32"):
        authority.sign(_request(), me, dns_names=["x.example"] * 33)
    with pytest.raises(InvalidRequest, match="at least 1 s"):
        authority.sign(_request(), me, lifetime=0)


async def test_all_replicas_sign_with_the_same_intermediate_and_trust_the_same(
    authority: Authority, store: MemoryStore, clock: Clock
) -> None:
    async with Authority.open(store, SEALER, clock=clock) as other:
        assert other.status == authority.status
        generation = other.generation
        await authority.rotate(Level.INTERMEDIATE)
        await authority.federate("b.example", Pki("b.example").bundle().pem)
        await other.changed_since(generation)
        await _agree(authority, other)
        assert other.bundles.of("b.example") is not None
        chains = [each.sign(_request(), ME).chain[1] for each in (authority, other)]
        assert chains[0] == chains[1]
        await other.unfederate("b.example")
        await _agree(authority, other)
        with pytest.raises(NotFound):
            await authority.unfederate("b.example")


async def test_replicas_that_start_at_once_make_one_authority(store: MemoryStore, clock: Clock) -> None:
    async def root() -> bytes:
        async with Authority.open(store, SEALER, clock=clock) as authority:
            return authority.bundles.own.pem

    assert len(set(await asyncio.gather(*(root() for _ in range(4))))) == 1


async def test_replicas_that_change_it_at_once_lose_no_change(
    authority: Authority, store: MemoryStore, clock: Clock
) -> None:
    async with Authority.open(store, SEALER, clock=clock) as other:
        domains = [f"d{number}.example" for number in range(10)]
        pems = [Pki(each).bundle().pem for each in domains]
        await asyncio.gather(
            *(
                (authority, other)[number % 2].federate(domain, pems[number])
                for number, domain in enumerate(domains)
            )
        )
        await _agree(authority, other)
        assert sorted(other.bundles.federated) == sorted(domains)


async def test_a_root_is_rotated_by_the_clock_alone(store: MemoryStore, clock: Clock) -> None:
    lifetimes = Lifetimes(root=9000, intermediate=3000, svid=600, propagation=60)
    async with Authority.open(store, SEALER, clock=clock, lifetimes=lifetimes) as authority:
        first = authority.status.root
        issued = authority.sign(_request(), ME)
        await authority.rotate(Level.ROOT)
        with pytest.raises(Conflict):
            await authority.rotate(Level.ROOT)
        assert authority.status.next_root is not None
        clock.now += 60
        await authority.tick()
        assert authority.status.root != first
        assert verify_svid(issued, authority.bundles, now=clock.now) == ME
        clock.now += 661
        await authority.tick()
        assert len(authority.bundles.own.roots) == 1


async def test_the_authority_outlives_its_processes_and_shows_no_key_at_rest(
    store: MemoryStore, clock: Clock
) -> None:
    async with Authority.open(store, SEALER, clock=clock) as authority:
        before = authority.status
    async with Authority.open(store, SEALER, clock=clock) as authority:
        assert authority.status == before
        assert "PRIVATE" not in repr(authority._shared.current)
    entry = await (await _raw(store)).get(KEY)
    assert entry is not None
    assert b"PRIVATE" not in entry.value


async def test_a_state_that_cannot_be_opened_is_left_alone(store: MemoryStore, clock: Clock) -> None:
    async with Authority.open(store, SEALER, clock=clock):
        pass
    bucket = await _raw(store)
    before = await bucket.get(KEY)
    with pytest.raises(SealBroken, match="not configured"):
        async with Authority.open(store, Sealer([os.urandom(32)]), clock=clock):
            pass
    with pytest.raises(InvalidRequest, match=r"trust domain 'weft\.local'"):
        async with Authority.open(store, SEALER, trust_domain="b.example", clock=clock):
            pass
    assert await bucket.get(KEY) == before


async def test_its_state_is_sealed_anew_once_the_sealing_key_is_another(
    store: MemoryStore, clock: Clock
) -> None:
    async with Authority.open(store, SEALER, clock=clock) as authority:
        before = authority.status
    fresh = os.urandom(32)
    async with Authority.open(store, Sealer([fresh, SEALING_KEY]), clock=clock):
        pass
    async with Authority.open(store, Sealer([fresh]), clock=clock) as authority:
        assert authority.status == before


async def test_a_state_that_the_store_lost_or_went_back_from_is_put_back(
    authority: Authority, store: MemoryStore
) -> None:
    bucket = await _raw(store)
    first = await bucket.get(KEY)
    assert first is not None
    await authority.rotate(Level.INTERMEDIATE)
    latest = authority.status

    async def is_back() -> bool:
        entry = await bucket.get(KEY)
        return entry is not None and entry.value != first.value

    async with asyncio.timeout(30):
        await bucket.delete(KEY)
        await until(is_back)
        await bucket.put(KEY, first.value)
        await until(is_back)
    assert authority.status == latest
    await authority.rotate(Level.INTERMEDIATE)
    assert authority.status != latest


async def test_an_authority_made_by_who_found_the_store_empty_gives_way_to_the_one_that_is_trusted(
    authority: Authority, store: MemoryStore, clock: Clock
) -> None:
    before = authority.status
    other_store = MemoryStore()
    clock.now += 1
    async with Authority.open(other_store, SEALER, clock=clock) as upstart:
        await upstart.rotate(Level.INTERMEDIATE)
    entry = await (await _raw(other_store)).get(KEY)
    await other_store.close()
    assert entry is not None
    bucket = await _raw(store)
    await bucket.put(KEY, entry.value)

    async def is_gone() -> bool:
        now = await bucket.get(KEY)
        return now is not None and now.value != entry.value

    async with asyncio.timeout(30):
        await until(is_gone)
    async with Authority.open(store, SEALER, clock=clock) as fresh:
        assert fresh.status == before == authority.status


async def test_garbage_in_the_store_changes_nothing(
    authority: Authority, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    before = authority.status

    async def is_logged() -> bool:
        return "going on with the certificate authority as it was" in caplog.text

    await (await _raw(store)).put(KEY, b"garbage")
    async with asyncio.timeout(30):
        await until(is_logged)
    assert authority.status == before
    assert authority.sign(_request(), ME).id == ME


def _pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode()
