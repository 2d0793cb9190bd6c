"""Who is let into a gateway, by keys and tokens: with a real server of an issuer's keys."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from weft.errors import InvalidRequest, MeshError, Unauthenticated, Unavailable
from weft.gateway import key_set
from weft.gateway.authentication import Authentication
from weft.gateway.caller import Insider, Outsider
from weft.gateway.key_set import KeySet, parse_key_set
from weft.gateway.tokens import TokenVerifier
from weft.model.api_key import ApiKey, api_key_hash, new_api_key
from weft.model.gateway import GatewaySpec, JwtIssuer, Rate
from weft.sdk.server import bind, serving_http

ISSUER = "https://login.example.com"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
ALGORITHMS: dict[str, PrivateKey] = {"RS256": RSA_KEY, "ES256": EC_KEY, "EdDSA": ED_KEY}


def _jwk(algorithm: str, key: PrivateKey, kid: str) -> dict[str, Any]:
    described: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**described, "kid": kid, "use": "sig"}


def _key_set(*entries: dict[str, Any]) -> str:
    return json.dumps({"keys": entries})


PUBLISHED = _key_set(*(_jwk(name, key, f"k-{name}") for name, key in ALGORITHMS.items()))


def _token(
    algorithm: str = "ES256", key: PrivateKey | None = None, kid: str | None = None, **claims: Any
) -> str:
    now = time.time()
    claims = {"iss": ISSUER, "aud": "weft", "sub": "alice", "exp": now + 60, **claims}
    claims = {name: value for name, value in claims.items() if value is not None}
    headers = {"kid": kid or f"k-{algorithm}"}
    return jwt.encode(claims, key or ALGORITHMS[algorithm], algorithm=algorithm, headers=headers)


def _headers(**given: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]


def _bearer(token: str) -> list[tuple[bytes, bytes]]:
    return _headers(authorization=f"Bearer {token}")


class Door:
    """An Authentication whose parts can be changed."""

    def __init__(self, spec: GatewaySpec) -> None:
        self.spec = spec
        self.keys: dict[str, ApiKey] = {}
        self.now = time.time()
        self.verifier = TokenVerifier()
        self.authentication = Authentication(
            "public", lambda: self.spec, lambda: self.keys, self.verifier, clock=lambda: self.now
        )

    def add(self, name: str, **members: Any) -> str:
        """A new key."""
        text = new_api_key(name)
        digest = api_key_hash(text)
        self.keys[digest] = ApiKey(name=name, sha256=digest, created_at=self.now, **members)
        return text


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Door]:
    issuer = JwtIssuer(issuer=ISSUER, audiences=("weft", "other"), jwks=PUBLISHED)
    door = Door(GatewaySpec(jwt=(issuer,)))
    yield door
    await door.verifier.aclose()


async def test_a_key_is_taken_in_either_header_until_it_expires_or_is_gone(door: Door) -> None:
    text = door.add("ci", expires_at=door.now + 10, rate=Rate(requests=7), queues=("a",), sees_all=True)
    caller = await door.authentication.caller(_bearer(text))
    assert isinstance(caller, Outsider)
    assert (caller.submitter, caller.rate.requests, caller.queues) == ("public/key:ci", 7, ("a",))
    assert text not in repr(caller)
    assert await door.authentication.caller(_headers(x_api_key=text)) == caller
    assert door.authentication.still_good(caller)
    door.now += 11
    assert not door.authentication.still_good(caller)
    with pytest.raises(Unauthenticated, match="has expired") as expired:
        await door.authentication.caller(_bearer(text))
    assert text not in str(expired.value)
    door.now -= 11
    door.keys.clear()
    assert not door.authentication.still_good(caller)
    with pytest.raises(Unauthenticated, match="not known"):
        await door.authentication.caller(_bearer(text))


async def test_who_shows_nothing_is_anonymous_where_that_is_allowed_and_a_wrong_credential_is_never(
    door: Door,
) -> None:
    with pytest.raises(Unauthenticated):
        await door.authentication.caller([])
    door.spec = GatewaySpec(anonymous=True)
    caller = await door.authentication.caller([])
    assert isinstance(caller, Outsider)
    assert caller.anonymous
    for wrong in (
        _bearer(new_api_key("ci")),
        _bearer("nonsense"),
        _headers(authorization="Basic eDp5"),
        _headers(x_api_key="nonsense"),
        _headers(x_api_key=""),
        [*_bearer("a"), *_bearer("b")],
    ):
        with pytest.raises(Unauthenticated):
            await door.authentication.caller(wrong)


async def test_only_what_did_not_come_from_outside_is_believed_about_members_of_the_mesh(door: Door) -> None:
    inside = "spiffe://weft.local/agent/editor/e-1"
    assert isinstance(await door.authentication.caller(_headers(x_weft_caller=inside)), Insider)
    for headers in (
        _headers(x_weft_caller=inside, x_weft_door="outside"),
        _headers(x_weft_caller=inside, x_weft_door=""),
        _headers(x_weft_caller="editor"),
        _headers(x_weft_caller=inside) * 2,
    ):
        with pytest.raises(Unauthenticated):
            await door.authentication.caller(headers)
    with pytest.raises(Unauthenticated):
        await door.authentication.caller(_headers(x_weft_caller=inside), outside=True)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_tokens_are_taken_that_their_issuer_signed(door: Door, algorithm: str) -> None:
    caller = await door.authentication.caller(_bearer(_token(algorithm, sub="al/ice@x")))
    assert caller.submitter == f"public/jwt:al%2Fice%40x@{ISSUER}"


def _forged(header: dict[str, Any], claims: dict[str, Any], secret: bytes = b"") -> str:
    def part(value: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part(header) + b"." + part(claims)
    signature = hmac.digest(secret, signed, hashlib.sha256) if secret else b""
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


CLAIMS = {"iss": ISSUER, "aud": "weft", "sub": "root", "exp": 4_000_000_000}
PUBLIC_PEM = RSA_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: _forged({"alg": "none"}, CLAIMS),
        lambda: _forged({"alg": "none", "kid": "k-RS256"}, CLAIMS),
        # The public key as a shared secret.
        lambda: _forged({"alg": "HS256", "kid": "k-RS256"}, CLAIMS, PUBLIC_PEM),
        lambda: _token("ES256", ec.generate_private_key(ec.SECP256R1())),
        lambda: _token("RS256", kid="k-ES256"),
        lambda: _token(exp=time.time() - 60),
        lambda: _token(exp=None),
        lambda: _token(exp="soon"),
        lambda: _token(aud="elsewhere"),
        lambda: _token(aud=None),
        lambda: _token(iss="https://elsewhere.example.com"),
        lambda: _token(iss=None),
        lambda: _forged({"alg": "ES256"}, {**CLAIMS, "iss": [ISSUER]}),
        lambda: _token(sub=None),
        lambda: _token(sub=""),
        lambda: _token(sub="x" * 256),
        lambda: _token(nbf=time.time() + 600),
        lambda: _token(extra="x" * 8192),
        lambda: "a.b.c",
        lambda: "..",
    ],
)
async def test_tokens_that_prove_nothing_are_refused(door: Door, make: Callable[[], str]) -> None:
    token = make()
    with pytest.raises(Unauthenticated) as refused:
        await door.authentication.caller(_bearer(token))
    assert token not in str(refused.value)


def test_weak_keys_and_shared_secrets_in_a_key_set_are_left_out() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    secret = {"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(b"s" * 32).decode()}
    encryption = {**_jwk("ES256", EC_KEY, "e"), "use": "enc"}
    confused = {**_jwk("RS256", RSA_KEY, "c"), "alg": "HS256"}
    good = _jwk("EdDSA", ED_KEY, "g")
    parsed = parse_key_set(_key_set(secret, _jwk("RS256", weak, "w"), encryption, confused, {}, good))
    assert [each.id for each in parsed] == ["g"]
    for wrong in ("", "[]", '{"keys": {}}', '{"keys": [1]}', _key_set(secret)):
        with pytest.raises(InvalidRequest):
            parse_key_set(wrong)


class KeyServer:
    """An issuer's key server."""

    def __init__(self) -> None:
        self.body: str | bytes = _key_set(_jwk("ES256", EC_KEY, "first"))
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.url = ""

    async def answer(self, _request: Request) -> Response:
        self.asked += 1
        return Response(self.body, self.status, self.headers)


@pytest_asyncio.fixture
async def key_server() -> AsyncIterator[KeyServer]:
    server = KeyServer()
    app = Starlette()
    app.add_route("/jwks", server.answer)
    listener = bind("127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/jwks"
    async with serving_http(app, listener):
        yield server


async def test_new_keys_are_fetched_when_they_turn_up_but_not_for_every_unknown_one(
    key_server: KeyServer,
) -> None:
    now = 100.0
    issuer = JwtIssuer(issuer=ISSUER, audiences=("weft",), jwks_url=key_server.url)
    keys = KeySet(issuer, clock=lambda: now)
    assert [each.id for each in await keys.candidates("first")] == ["first"]
    key_server.body = _key_set(_jwk("ES256", EC_KEY, "second"))
    now += 9
    await asyncio.gather(*(keys.candidates(f"made-up-{number}") for number in range(20)))
    assert key_server.asked == 1
    now += 2
    found = await asyncio.gather(*(keys.candidates("second") for _ in range(20)))
    assert {each.id for known in found for each in known} == {"second"}
    assert key_server.asked == 2
    await keys.aclose()


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (500, PUBLISHED, {}),
        (302, "", {"location": "http://127.0.0.1:1/"}),
        (200, "<html>", {}),
        (200, b" " * (key_set.MAX_SET_BYTES + 1), {}),
    ],
)
async def test_old_keys_stay_good_while_the_issuer_has_none_to_give(
    key_server: KeyServer, status: int, body: str | bytes, headers: dict[str, str]
) -> None:
    now = 100.0
    issuer = JwtIssuer(issuer=ISSUER, audiences=("weft",), jwks_url=key_server.url)
    keys = KeySet(issuer, clock=lambda: now)
    await keys.candidates("first")
    key_server.status, key_server.body, key_server.headers = status, body, headers
    now += 11
    assert list(await keys.candidates("unknown")) == []
    assert key_server.asked == 2
    assert [each.id for each in await keys.candidates("first")] == ["first"]
    await keys.aclose()


async def test_while_an_issuers_keys_were_never_had_its_tokens_cannot_be_judged() -> None:
    issuer = JwtIssuer(issuer=ISSUER, audiences=("weft",), jwks_url="http://127.0.0.1:1/jwks")
    door = Door(GatewaySpec(jwt=(issuer,)))
    with pytest.raises(Unavailable) as refused:
        await door.authentication.caller(_bearer(_token()))
    assert isinstance(refused.value, MeshError)
    await door.verifier.aclose()


async def test_a_key_that_was_just_made_is_looked_for_before_it_is_refused(door: Door) -> None:
    asked = 0

    async def look_again() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            door.keys[digest] = ApiKey(name="new", sha256=digest, created_at=door.now)

    text = new_api_key("new")
    digest = api_key_hash(text)
    authentication = Authentication(
        "public", lambda: door.spec, lambda: door.keys, door.verifier, look_again=look_again
    )
    with pytest.raises(Unauthenticated, match="not known"):
        await authentication.caller(_bearer(text))
    assert isinstance(await authentication.caller(_bearer(text)), Outsider)
    await authentication.caller(_bearer(text))
    assert asked == 2
