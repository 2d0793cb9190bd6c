"""Where webhooks may go, and how they are signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Sequence

import pytest

from weft.errors import InvalidRequest, Unavailable
from weft.gateway.webhook_address import is_permitted, parse_receiver, permitted_addresses, system_lookup
from weft.gateway.webhook_signature import WebhookSigner
from weft.model.gateway import WebhookSpec

RULES = WebhookSpec()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not is_permitted(ipaddress.ip_address(address), RULES)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are_permitted(address: str) -> None:
    assert is_permitted(ipaddress.ip_address(address), RULES)


def test_networks_that_the_gateway_allows_are_permitted_and_only_they() -> None:
    rules = WebhookSpec(allow_networks=("10.1.0.0/16", "fd00::/64"))
    for address, permitted in (
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("10.2.0.1", False),
        ("fd00::5", True),
        ("fd00:0:0:1::5", False),
        ("127.0.0.1", False),
    ):
        assert is_permitted(ipaddress.ip_address(address), rules) is permitted


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "http://example.com/",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com/#fragment",
        "https://example.com:99999/",
        "https://example.com:port/",
        "https://exa mple.com/",
        "https://example.com/\r\nx: y",
        "https://example.com\\@evil.org/",
        "https://exämple.com/",
        "https://[::1",
        "https://[fe80::1%25eth0]:x/",
        "https://-example.com/",
        f"https://{'a' * 64}.com/",
        "https://example.com/" + "x" * 2048,
    ],
)
def test_urls_that_are_none_for_webhooks_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_receiver(url, RULES)


def test_a_receiver_is_where_its_url_says() -> None:
    receiver = parse_receiver("https://Hooks.Example.com:8443/a/b?c=d", RULES)
    assert (receiver.host, receiver.port, receiver.tls) == ("hooks.example.com", 8443, True)
    assert (receiver.target, receiver.authority) == ("/a/b?c=d", "hooks.example.com:8443")
    plain = parse_receiver("http://[2606:4700::1111]", WebhookSpec(allow_http=True))
    assert (plain.port, plain.target, plain.authority) == (80, "/", "[2606:4700::1111]")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "[::ffff:7f00:1]", "[::1]"],
)
async def test_no_way_of_writing_loopback_gets_around_the_check(host: str) -> None:
    receiver = parse_receiver(f"https://{host}/", RULES)
    # Systems differ in which of these they take for addresses at all.
    with pytest.raises((InvalidRequest, Unavailable)):
        await permitted_addresses(receiver, RULES, system_lookup)


async def test_one_address_that_is_not_public_condemns_a_name_and_nothing_tells_which() -> None:
    async def two_faced(host: str, port: int) -> Sequence[str]:
        return ["93.184.216.34", "10.9.8.7"]

    receiver = parse_receiver("https://two-faced.example/", RULES)
    with pytest.raises(InvalidRequest) as caught:
        await permitted_addresses(receiver, RULES, two_faced)
    assert "10.9.8.7" not in caught.value.detail


def test_every_submitter_has_a_secret_of_its_own_with_which_its_signatures_are_verified() -> None:
    signer = WebhookSigner(b"k" * 32)
    secret = signer.secret_of("public/key:alice")
    assert secret != signer.secret_of("public/key:bob")
    assert secret != WebhookSigner(b"l" * 32).secret_of("public/key:alice")
    headers = signer.headers("public/key:alice", "id-1", 1_700_000_000, b"{}")
    # As the specification has it, without anything of the module under test.
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, b"id-1.1700000000.{}", hashlib.sha256).digest()).decode()
    assert headers == {
        "webhook-id": "id-1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,{expected}",
    }
    with pytest.raises(InvalidRequest):
        WebhookSigner(b"short")
