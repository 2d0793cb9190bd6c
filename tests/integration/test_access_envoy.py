"""AccessPolicies, enforced by the real Envoy beside the agent that is called."""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import httpx
import pytest
import yaml
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from tests.envoys import LIMIT, StaticEnvoy, running_envoy
from tests.pki import Pki
from tests.sds import write_secrets

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.translate.access import Access
from weft.controlplane.translate.bodies import MAX_READ_BODY_BYTES
from weft.controlplane.translate.inbound_routes import inbound_routes
from weft.controlplane.translate.listeners import inbound_listener
from weft.controlplane.xds.snapshot import Snapshot, encode
from weft.model.access import AccessPolicySpec, Action
from weft.model.agent import Instance, Status
from weft.model.audit import Outcome
from weft.model.decision import (
    AMBIGUOUS,
    REVOKED,
    AccessPolicies,
    AccessRequest,
    AccessTarget,
    Decision,
    RpcCall,
    TargetKind,
    decide,
)
from weft.model.manifest import parse_manifest
from weft.model.node import Address, Inbound, Node
from weft.model.spiffe import parse_spiffe_id
from weft.sidecar.denials import parse_denial

HOST = "127.0.0.1"
OURS = Pki()
PARTNER = Pki("partner.example")

EDITOR = "spiffe://weft.local/agent/editor/e-1"
SUMMARIZER = "spiffe://weft.local/agent/summarizer/s-1"
CALLERS = (
    EDITOR,
    "spiffe://weft.local/agent/editor/e-10",
    "spiffe://weft.local/agent/edit/e-1",
    "spiffe://weft.local/operator/alice/laptop",
    "spiffe://weft.local/operator/editor/e-1",
    "spiffe://partner.example/agent/editor/e-1",
)
LABELS = {EDITOR: {"team": "press"}, CALLERS[2]: {"team": "press", "grade": "a"}, CALLERS[3]: {"team": "law"}}
TARGET = AccessTarget(TargetKind.AGENT, "summarizer", "2", frozenset({"summarize"}))


class Recorder:
    """An agent that remembers what it was asked for."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, path, _ = head.split(" ", 2)
                self.seen.append((method, path))
                if length := re.search(r"(?i)\r\ncontent-length: (\d+)", head):
                    await reader.readexactly(int(length[1]))
                elif re.search(r"(?i)\r\ntransfer-encoding: chunked", head):
                    await reader.readuntil(b"\r\n0\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        writer.close()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def policy(self) -> str:
        return self.headers.get("x-weft-policy", "")


class Caller:
    """Somebody with a certificate, and a connection that is kept."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._context = context
        self._port = port
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, request: bytes) -> Answer:
        """The answer to a request, whose bytes are sent as they are."""
        async with asyncio.timeout(LIMIT):
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection(
                    HOST, self._port, ssl=self._context
                )
            self._writer.write(request)
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (each.partition(": ") for each in head[1:-2])
            }
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(head[0].split(" ")[1]), headers, body)

    async def ask(self, method: str, target: str, body: bytes | None = None, *headers: str) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", "host: summarizer.mesh", *headers]
        lines += [] if body is None else [f"content-length: {len(body)}"]
        return await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None


class Callee:
    """Envoy beside an agent, once with every set of policies: each set has a listener of its own."""

    def __init__(self, agent: Recorder, envoy: StaticEnvoy, ports: list[int], directory: Path) -> None:
        self.agent = agent
        self.envoy = envoy
        self.ports = ports
        self._directory = directory
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._callers: dict[tuple[str, int], Caller] = {}

    def caller(self, who: str = EDITOR, policies: int = 0) -> Caller:
        if who not in self._contexts:
            self._contexts[who] = _context(self._directory, who)
        key = (who, self.ports[policies])
        return self._callers.setdefault(key, Caller(self._contexts[who], key[1]))

    def close(self) -> None:
        for each in self._callers.values():
            each.close()


def _context(directory: Path, who: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    file = directory / "caller.pem"
    file.write_bytes(b"".join((PARTNER if "partner" in who else OURS).svid(who)))
    context.load_cert_chain(file)
    return context


@asynccontextmanager
async def callee(
    directory: Path, *sets: AccessPolicies, revoked: Iterable[str] = ()
) -> AsyncIterator[Callee]:
    """An Envoy that enforces each of the sets at a port of its own."""
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(Recorder())
        reserved = [reserve_port(HOST) for _ in sets]
        ports = [each.port for each in reserved]
        inbounds = [
            Inbound(
                "summarizer",
                Address(HOST, port),
                Address(HOST, agent.port),
                capabilities=TARGET.capabilities,
                version=TARGET.version,
            )
            for port in ports
        ]
        listeners, routes = {}, {}
        for index, (inbound, policies) in enumerate(zip(inbounds, sets, strict=True)):
            access = Access(policies, labels_of=LABELS, revoked=frozenset(revoked))
            configuration = inbound_routes(TARGET, access)
            configuration.name = f"inbound-{index}"
            routes[configuration.name] = encode(configuration.name, configuration)
            listener = inbound_listener(inbound)
            listener.name = configuration.name
            _use_routes(listener, configuration.name)
            listeners[listener.name] = encode(listener.name, listener)
        node = Node("s-1", Address(HOST, 1), inbounds[0])
        usual = Snapshots([Address(HOST, 7400)]).snapshot(node)
        for each in reserved:
            each.release()
        envoy = running_envoy(
            Snapshot(usual.clusters, {}, listeners, routes),
            node,
            lambda secrets: write_secrets(secrets, OURS, SUMMARIZER, PARTNER),
        )
        result = Callee(agent, await stack.enter_async_context(envoy), ports, directory)
        stack.callback(result.close)
        yield result


def _use_routes(listener: Listener, name: str) -> None:
    packed = listener.filter_chains[0].filters[-1].typed_config
    manager = HttpConnectionManager()
    packed.Unpack(manager)
    manager.rds.route_config_name = name
    packed.Pack(manager)


def policies_of(text: str) -> AccessPolicies:
    return {name: AccessPolicySpec.model_validate(each) for name, each in yaml.safe_load(text).items()}


# Every combination comes to what the decision says.

PATHS = (
    "/rpc",
    "/mcp",
    "/mcp/",
    "/MCP",
    "/mcp/x",
    "/admin;x",
    "/a2a/message:send",
    "/tasks/7",
    "/tasks/7:cancel",
)
BODIES = (
    None,
    b'{"text": "ordinary"}',
    b'{"jsonrpc": "2.0", "id": 1, "result": {}}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search"}}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "delete"}}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": {"name": "delete"}}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {}}',
    b'[{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "delete"}}]',
    b'{"jsonrpc": "2.0"',
)


def some_policies(dice: random.Random) -> AccessPolicies:
    """A few policies, as different as can be."""
    principals = (
        {"type": "editor"},
        {"instance": "editor/e-1"},
        {"operator": "alice"},
        {"operator": "editor"},
        {"trustDomain": "partner.example"},
        {"trustDomain": "partner.example", "type": "editor"},
        {"labels": {"team": "press"}},
        {"labels": {"team": "press"}, "type": "editor"},
        {"labels": {"team": "nobody"}},
    )
    destinations = (
        {"type": "summarizer"},
        {"type": "summarizer", "version": "2"},
        {"type": "summarizer", "version": "1"},
        {"capability": "summarize"},
        {"type": "other"},
        {"topic": "summarizer"},
    )
    parts: dict[str, tuple[Any, ...]] = {
        "methods": (["GET"], ["POST", "PUT"]),
        "paths": (["/mcp"], ["/mcp/*"], ["/rpc", "/tasks/*"], ["/*"], ["/m*"]),
        "mcp": (
            {"methods": ["tools/list"]},
            {"tools": ["search"]},
            {"tools": ["delete"]},
            {"methods": ["tools/list", "tools/call"], "tools": ["search"]},
        ),
        "a2a": ({"methods": ["SendMessage"]}, {"methods": ["GetTask", "CancelTask"]}),
        "actions": (["call"], ["publish"]),
    }

    def some(choices: tuple[Any, ...], most: int) -> list[Any]:
        return dice.sample(choices, dice.randint(0, most))

    def rule() -> dict[str, Any]:
        fields = dice.sample(sorted(parts), dice.choice((1, 1, 2, 3)))
        if {"mcp", "a2a"} <= set(fields):
            fields.remove("mcp")
        return {each: dice.choice(parts[each]) for each in fields}

    found: dict[str, Any] = {}
    for number in range(dice.randint(1, 4)):
        found[f"p{number}"] = {
            "effect": dice.choice(("allow", "deny", "deny")),
            "mode": dice.choice(("enforce", "enforce", "enforce", "dryRun")),
            "from": some(principals, 2),
            "to": some(destinations, 3),
            "rules": [rule() for _ in range(dice.randint(0, 2))],
        }
    if dice.random() < 0.7:
        found["usual"] = {"default": dice.choice(("allow", "deny", "deny"))}
    return {name: AccessPolicySpec.model_validate(each) for name, each in found.items()}


def read(body: bytes | None) -> RpcCall | None:
    if body is None:
        return RpcCall()
    try:
        message = json.loads(body)
    except ValueError:
        return None
    if not isinstance(message, dict):
        return None
    return RpcCall(message.get("method", ""), message.get("params", {}).get("name", ""))


def decided(policies: AccessPolicies, who: str, request: AccessRequest) -> Decision:
    return decide(policies, parse_spiffe_id(who), request, labels=LABELS.get(who))


def deniers(policies: AccessPolicies, who: str, request: AccessRequest) -> set[str]:
    """The policies that deny a request, any of which may be named; none if it is allowed."""
    whole = decided(policies, who, request)
    if whole.allowed:
        return set()
    alone = [decided({name: spec}, who, request) for name, spec in policies.items() if spec.default is None]
    return {each.policy for each in alone if not each.allowed} or {whole.policy}


def trials(target: Callee) -> dict[str, str]:
    """The host, and the policy, of every call that Envoy says a policy on trial would have denied."""
    found = [parse_denial(each, callee="summarizer", observer="s-1") for each in target.envoy.denials()]
    return {
        each.details["authority"]: each.policy
        for each in found
        if each is not None and each.outcome is Outcome.WOULD_BE_DENIED
    }


async def test_envoy_comes_to_what_the_decision_says(tmp_path: Path) -> None:
    dice = random.Random(20261121)
    sets = [some_policies(dice) for _ in range(40)]
    outcomes = set()
    on_trial: dict[str, tuple[str, ...]] = {}
    async with callee(tmp_path, *sets) as target:
        for index, policies in enumerate(sets):
            for number in range(60):
                who, path, body = dice.choice(CALLERS), dice.choice(PATHS), dice.choice(BODIES)
                method = dice.choice(("GET", "PUT")) if body is None else "POST"
                request = AccessRequest(Action.CALL, TARGET, method, path, read(body))
                decision = decided(policies, who, request)
                expected = deniers(policies, who, request)
                host = f"r{index}-{number}.mesh"
                if decision.allowed:
                    on_trial[host] = decision.dry_run
                answer = await target.caller(who, index).ask(method, f"http://{host}{path}", body)
                named = answer.policy.removeprefix("accesspolicy/")
                assert answer.status == (403 if expected else 200), (policies, who, request, expected, answer)
                assert named in (expected or {""}), (policies, who, request, expected, answer)
                outcomes.add(named)
        assert outcomes >= {"", "usual", "p0", "p1", AMBIGUOUS}
        wanted = {host for host, policies in on_trial.items() if policies}
        async with asyncio.timeout(LIMIT):
            await until(lambda: _true(wanted <= trials(target).keys()))
        for host, policy in trials(target).items():
            if host in on_trial:
                assert (policy or "usual") in on_trial[host]
        assert {"p0", "usual"} <= {policy or "usual" for policy in trials(target).values()}


async def _true(value: bool) -> bool:
    return value


# Paths

DENY_ADMIN = "p: {effect: deny, rules: [{paths: [/admin, /keys/*]}]}"
ALLOW_PUBLIC = "d: {default: deny}\np: {effect: allow, rules: [{methods: [GET], paths: [/public/*]}]}"

TRICKS = (
    "/{}", "//{}", "///{}", "/./{}", "/x/../{}", "/x/%2e%2e/{}", "/x/%2E./{}", "/x//../{}", "/x/..//{}",
    "/\\{}", "/x\\..\\{}", "/%2f{}", "/%5c{}", "/x/..%2f{}", "/x%2f..%2f{}", "/x/..%5c{}", "/;/{}",
    "/;x=1/{}", "/x/..;/{}", "/{};x", "/{};x=/../y", "/{}?x", "/{}?/../y", "/{}#x", "/{}%23x", "/{}%3fx",
    "/{}%00", "/{}%00/y", "/{}/", "/{}//", "/{}/.", "/{}/./", "/{}/y/..", "/{}%2f", "/{}%20", "/%252f{}",
    "/%25252f{}", "/%c0%af{}", "/%e0%80%af{}", "/%u002f{}", "http://summarizer.mesh/{}",
    "http://summarizer.mesh//x/../{}", "http://elsewhere/{}", "{}", "*", "/public/../{}",
    "/public/%2e%2e/{}", "/public/..%2f{}", "/public/..;/{}", "/public/x/../../{}", "/public\\..\\{}",
    "/public//../{}", "/public/..%252f{}", "/public%2f..%2f{}", "/public/.%2e/{}", "/public/%2e%2e%2f{}",
)  # fmt: skip
NAMES = (
    "admin",
    "ADMIN",
    "aDmin",
    "%61dmin",
    "adm%69n",
    "%61%64%6d%69%6e",
    "%2561dmin",
    "keys/1",
    "KEYS/1",
    "keys%2f1",
)


def lax(path: str) -> str:
    """A path as the most careless of agents may read it."""
    for _ in range(3):
        path = unquote(path.partition("?")[0]).replace("\\", "/").partition("\0")[0]
    parts: list[str] = []
    for each in (part.partition(";")[0].lower() for part in path.split("/")):
        if each == "..":
            del parts[-1:]
        elif each not in {"", "."}:
            parts.append(each)
    return "/" + "/".join(parts)


async def test_no_trick_with_a_path_gets_around_a_rule(tmp_path: Path) -> None:
    async with callee(tmp_path, policies_of(DENY_ADMIN), policies_of(ALLOW_PUBLIC)) as target:
        for method in ("GET", "get", "POST"):
            for trick in TRICKS:
                for name in NAMES if method == "GET" else NAMES[:1]:
                    for policies in (0, 1):
                        caller = target.caller(policies=policies)
                        before = len(target.agent.seen)
                        answer = await caller.ask(
                            method, trick.format(name), b"" if method == "POST" else None
                        )
                        seen = target.agent.seen[before:]
                        assert (answer.status == 200) == bool(seen), (trick, name, answer)
                        for _, path in seen:
                            if policies == 0:
                                assert not re.match(r"/(admin$|keys(/|$))", lax(path)), (trick, name, path)
                            else:
                                assert (method, lax(path)[:8]) == ("GET", "/public/"), (trick, name, path)
        assert (await target.caller().ask("GET", "/x/~fine%20caf%C3%A9?q=/admin")).status == 200
        assert (await target.caller(policies=1).ask("GET", "/public/a?b")).status == 200


async def test_without_rules_about_paths_they_are_left_as_they_are(tmp_path: Path) -> None:
    async with callee(tmp_path, policies_of("p: {effect: deny, from: [{operator: alice}]}")) as target:
        assert (await target.caller().ask("GET", "/a%2Fb//c;d")).status == 200
        assert target.agent.seen == [("GET", "/a%2Fb//c;d")]


# Bodies

DELETE = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "delete"}}'
SEARCH = DELETE.replace(b"delete", b"search")


def chunked(body: bytes) -> bytes:
    parts = (body[at : at + 9] for at in range(0, len(body), 9))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in parts)
    head = b"POST /mcp HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\n\r\n"


async def test_a_tool_is_denied_whatever_the_request_says_it_is(tmp_path: Path) -> None:
    policies = policies_of("p: {effect: deny, rules: [{paths: [/mcp], mcp: {tools: [delete]}}]}")
    modern = ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call")
    disguises = [
        (DELETE, ()),
        (DELETE, ("content-type: text/plain",)),
        (DELETE, ("content-type: application/json; charset=utf-8",)),
        (DELETE, ("content-type: application/json", *modern, "Mcp-Name: search")),
        (DELETE, (*modern[:1], "Mcp-Method: tools/list")),
        (DELETE.replace(b'"name"', b'"n\\u0061me"').replace(b"delete", b"del\\u0065te"), ()),
        (b"\xef\xbb\xbf" + DELETE, ()),
        (DELETE.decode().encode("utf-16"), ()),
        (b"[" + DELETE + b"]", ()),
        (DELETE + b"x", ()),
        (b"{}" + DELETE, ()),
        (DELETE.replace(b'"name"', b'"name": "search", "name"'), ()),
        (DELETE.replace(b'"delete"', b'"delete", "name": "search"'), ()),
        (DELETE.replace(b'"delete"', b'"delete", "n\\u0061me": "search"'), ()),
        (DELETE.replace(b'"name"', b'"Name"'), ()),
        (DELETE.replace(b'"params"', '"Param\u017f"'.encode()), ()),
        (DELETE.replace(b"{", b'{"Method" : "tools/call", "method": "tools/list", ', 1), ()),
        (DELETE.replace(b'"id": 1', b'"id": NaN'), ()),
        (b" " * 300_000 + DELETE, ()),
        (b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"," + DELETE[1:], ()),
    ]
    async with callee(tmp_path, policies) as target:
        caller = target.caller()
        for body, headers in disguises:
            answer = await caller.ask("POST", "/mcp", body, *headers)
            assert (answer.status, answer.policy) == (403, "accesspolicy/p"), (body[:200], headers)
        for path in ("/mcp/", "/MCP", "//mcp", "/mcp?x=1"):
            assert (await caller.ask("POST", path, DELETE)).status == 403, path
        assert (await caller.ask("post", "/mcp", DELETE)).status in {400, 403}
        assert (await caller.send(chunked(DELETE))).status == 403
        assert target.agent.seen == []
        assert (await caller.send(chunked(SEARCH))).status == 200
        assert (await caller.ask("POST", "/mcp", SEARCH, *modern, "Mcp-Name: delete")).status == 200
        assert (await caller.ask("POST", "/mcp", b'{"kind": "ordinary"}')).status == 200
        names = b'"search", "arguments": {"Name": "[{\\"", "name": [{"name": 1, "name": 2}]}'
        assert (await caller.ask("POST", "/mcp", SEARCH.replace(b'"search"', names))).status == 200
        assert (await caller.ask("POST", "/mcp", b"")).status == 200
        assert (await caller.ask("POST", "/elsewhere", b"no JSON at all")).status == 200


async def test_a_body_that_says_two_things_is_not_allowed_for_one_of_them(tmp_path: Path) -> None:
    policies = policies_of("p: {effect: allow, rules: [{mcp: {tools: [search]}}]}\nq: {default: deny}")
    async with callee(tmp_path, policies) as target:
        caller = target.caller()
        assert (await caller.ask("POST", "/mcp", SEARCH)).status == 200
        for body in (
            SEARCH.replace(b'"name"', b'"name": "delete", "name"'),
            SEARCH.replace(b'"name"', b'"Name": "delete", "name"'),
            SEARCH.replace(b'"params"', b'"PARAMS": {"name": "delete"}, "params"'),
        ):
            assert (await caller.ask("POST", "/mcp", body)).status == 403, body


async def test_bodies_are_read_up_to_a_limit_and_only_where_rules_are_about_them(tmp_path: Path) -> None:
    policies = policies_of("p: {effect: deny, rules: [{paths: [/mcp], mcp: {tools: [delete]}}]}")
    large = SEARCH[:-1] + b', "x": "' + b"x" * (MAX_READ_BODY_BYTES - 1000) + b'"}'
    async with callee(tmp_path, policies) as target:
        caller = target.caller()
        assert (await caller.ask("POST", "/mcp", large)).status == 200
        assert (await caller.ask("POST", "/upload", large + b"x" * 2000)).status == 200
        refused = await caller.ask("POST", "/mcp", large + b" " * 2000)
        assert (refused.status, refused.headers["x-weft-error"]) == (413, "invalid-request")


# What the caller hears


async def test_a_revoked_identity_is_refused_before_anything_else(tmp_path: Path) -> None:
    async with callee(tmp_path, policies_of("a: {effect: deny}"), revoked=[EDITOR]) as target:
        answer = await target.caller().ask("GET", "/")
        assert (answer.status, answer.policy) == (403, REVOKED)
        assert "its identity has been revoked" in json.loads(answer.body)["detail"]
        answer = await target.caller(CALLERS[1]).ask("GET", "/")
        assert answer.policy == "accesspolicy/a"


POLICIES = """
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: locked}
spec: {default: deny}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: readers}
spec: {effect: allow, from: [{type: editor}], rules: [{paths: [/read/*]}]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: no-secrets}
spec: {effect: deny, to: [{capability: summarize}], rules: [{paths: [/read/secret]}]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: no-deletion}
spec: {effect: deny, rules: [{paths: [/read/mcp], mcp: {tools: [delete]}}]}
"""


@pytest.fixture
async def pair() -> AsyncIterator[tuple[httpx.AsyncClient, Recorder]]:
    """A client beside an editor's sidecar, and the summarizer that it may call."""
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(Recorder())
        with reserve_port(HOST) as outbound, reserve_port(HOST) as inbound, reserve_port(HOST) as unused:
            ports = outbound.port, inbound.port, unused.port
        listening = Inbound(
            "summarizer", Address(HOST, ports[1]), Address(HOST, agent.port), capabilities=TARGET.capabilities
        )
        snapshots = Snapshots([Address(HOST, 7400)])
        running = Instance("s-1", "summarizer", f"{HOST}:{ports[1]}", Status.HEALTHY)
        snapshots.update([running], parse_manifest(POLICIES))
        for node, who in (
            (Node("s-1", Address(HOST, ports[2]), listening), SUMMARIZER),
            (Node("e-1", Address(HOST, ports[0])), EDITOR),
        ):
            await stack.enter_async_context(
                running_envoy(
                    snapshots.snapshot(node),
                    node,
                    lambda secrets, who=who: write_secrets(secrets, OURS, who),  # type: ignore[misc]
                )
            )
        client = httpx.AsyncClient(
            base_url=f"http://{HOST}:{ports[0]}", headers={"x-weft-to": "summarizer"}, timeout=LIMIT
        )
        yield await stack.enter_async_context(client), agent


async def test_a_denial_names_the_policy_and_is_not_retried(pair: tuple[httpx.AsyncClient, Recorder]) -> None:
    client, agent = pair
    assert (await client.get("/read/this", headers={"idempotency-key": "1"})).status_code == 200
    for path, policy, said in (
        ("/read/secret", "no-secrets", "AccessPolicy 'no-secrets' denies it"),
        ("/write", "locked", "no AccessPolicy allows it, and the mesh-wide default ('locked') is to deny"),
    ):
        answer = await client.get(path, headers={"idempotency-key": "2"})
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-weft-error"] == "denied"
        assert answer.headers["x-weft-policy"] == f"accesspolicy/{policy}"
        assert "x-weft-refused" not in answer.headers
        detail = answer.json()["detail"]
        assert detail.startswith(f"'{EDITOR}' may not make this call to 'summarizer': ")
        assert said in detail
    assert agent.seen == [("GET", "/read/this")]


async def test_bodies_are_read_on_the_hop_between_sidecars(pair: tuple[httpx.AsyncClient, Recorder]) -> None:
    client, agent = pair
    padding = b" " * 3 * 2**20
    assert (await client.post("/read/mcp", content=SEARCH + padding)).status_code == 200
    denied = await client.post("/read/mcp", content=DELETE + padding)
    assert (denied.status_code, denied.headers["x-weft-policy"]) == (403, "accesspolicy/no-deletion")
    too_large = await client.post("/read/mcp", content=SEARCH + padding + padding)
    assert (too_large.status_code, too_large.headers["x-weft-error"]) == (413, "invalid-request")
    assert agent.seen == [("POST", "/read/mcp")]


async def test_no_header_hides_who_calls(tmp_path: Path) -> None:
    disguises = (
        ("x-weft-caller: spiffe://weft.local/agent/other/o-1",),
        ("x-weft-caller:",),
        ("connection: x-weft-caller",),
        ("connection: TE, X-Weft-Caller", "te: trailers"),
        ("connection: upgrade, x-weft-caller, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABk"),
        ('x-forwarded-client-cert: URI="spiffe://weft.local/agent/other/o-1"',),
    )
    policies = policies_of("p: {effect: deny, from: [{type: editor}]}")
    async with callee(tmp_path, policies, revoked=[CALLERS[3]]) as target:
        for headers in disguises:
            for who, policy in ((EDITOR, "accesspolicy/p"), (CALLERS[3], REVOKED)):
                answer = await target.caller(who).ask("GET", "/", None, *headers)
                assert (answer.status, answer.policy) == (403, policy), headers
        assert target.agent.seen == []


async def test_a_denied_call_is_written_down_whatever_status_its_answer_has(tmp_path: Path) -> None:
    async with callee(tmp_path, policies_of(DENY_ADMIN)) as target:
        grpc = await target.caller().ask("POST", "/admin", b"", "content-type: application/grpc")
        assert (grpc.status, grpc.headers["grpc-status"]) == (200, "7")
        assert (await target.caller().ask("GET", "/admin")).status == 403
        assert (await target.caller().ask("GET", "/public")).status == 200
        async with asyncio.timeout(LIMIT):
            await until(lambda: _true(len(target.envoy.denials()) >= 2))
        lines = [json.loads(each) for each in target.envoy.denials()]
        assert [(each["kind"], each["method"]) for each in lines] == [("call", "POST"), ("call", "GET")]
