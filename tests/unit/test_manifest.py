"""Manifests: what is read, and what is said of what is wrong, by file, line and field."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from weft.errors import InvalidResource
from weft.model.agent_spec import AgentSpec
from weft.model.manifest import (
    MAX_MANIFEST_BYTES,
    MAX_PROBLEMS,
    MAX_RESOURCES,
    check_together,
    dump_manifest,
    parse_documents,
    parse_manifest,
)
from weft.model.resource import KINDS, canonical_kind
from weft.model.route import RouteSpec
from weft.model.traffic import BalancingPolicy, TrafficPolicySpec

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures" / "manifests").glob("*.yaml"))


def resource(kind: str, name: str, spec: str) -> str:
    """A document of which the spec begins on line 5."""
    indented = "".join(f"  {line}\n" for line in dedent(spec).strip("\n").splitlines())
    return f"apiVersion: weft.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{indented}"


def agent(spec: str, name: str = "summarizer") -> str:
    return resource("Agent", name, spec)


def policy(spec: str, name: str = "policy") -> str:
    return resource("TrafficPolicy", name, spec)


def rule(text: str, destination: str = "type: summarizer") -> str:
    """A Route with one rule, which begins on line 7."""
    return resource("Route", "route", f"destination: {{{destination}}}\nrules:\n- {text}")


def route(name: str, destination: str, *targets: str) -> str:
    parts = ", ".join(f"{{type: {each}, weight: 1}}" for each in targets)
    return resource("Route", name, f"destination: {{type: {destination}}}\nrules:\n- split: [{parts}]")


def telemetry(spec: str, name: str = "telemetry") -> str:
    return resource("Telemetry", name, spec)


def external(spec: str = "endpoints: ['10.0.0.7:80']", name: str = "crm") -> str:
    return resource("ExternalAgent", name, spec)


def together(*documents: str) -> str:
    return "---\n".join(documents)


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidResource) as caught:
        parse_manifest(text, "m.yaml")
    return [str(each) for each in caught.value.problems]


def spec(text: str) -> Any:
    [found] = parse_manifest(text)
    return found.spec


WRONG = {
    "an unknown field": (
        policy("timeoot: 5s"),
        "m.yaml:5: spec.timeoot: there is no field 'timeoot' here; did you mean 'timeout'?",
    ),
    "a field in snake case": (
        policy("idle_timeout: 5s"),
        "m.yaml:5: spec.idle_timeout: there is no field 'idle_timeout' here; did you mean 'idleTimeout'?",
    ),
    "an unknown field far from any other": (
        agent("health:\n  qqqq: 1"),
        "m.yaml:6: spec.health.qqqq: there is no field 'qqqq' here; there are path, interval, timeout, "
        "healthyThreshold, unhealthyThreshold",
    ),
    "an unknown field in a list": (
        rule("match:\n  - path: {prefix: /}\n  - pth: {prefix: /}"),
        "m.yaml:9: spec.rules[0].match[1].pth: there is no field 'pth' here; did you mean 'path'?",
    ),
    "an unknown kind": (
        "apiVersion: weft.dev/v1alpha1\nkind: Agnet\nmetadata: {name: a}\nspec: {}\n",
        "m.yaml:2: kind: there is no kind 'Agnet'; did you mean 'Agent'?",
    ),
    "a kind like no other": (
        "apiVersion: weft.dev/v1alpha1\nkind: Pod\nmetadata: {name: a}\nspec: {}\n",
        f"m.yaml:2: kind: there is no kind 'Pod'; there are {', '.join(KINDS)}",
    ),
    "no kind": (
        "metadata: {name: a}\n",
        f"m.yaml:1: kind: a resource needs a kind: one of {', '.join(KINDS)}",
    ),
    "a list for a resource": (
        "- 1\n",
        "m.yaml:1: must be a mapping with apiVersion, kind, metadata and spec",
    ),
    "another API version": (
        "apiVersion: weft.dev/v9\nkind: Agent\nmetadata: {name: a}\nspec: {}\n",
        "m.yaml:1: apiVersion: 'weft.dev/v9' is not known here; must be 'weft.dev/v1alpha1'",
    ),
    "no API version": (
        "kind: Agent\nmetadata: {name: a}\nspec: {}\n",
        "m.yaml:1: apiVersion: this field is required",
    ),
    "no spec": (
        "apiVersion: weft.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\n",
        "m.yaml:1: spec: this field is required",
    ),
    "a spec that is empty": (
        "apiVersion: weft.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec:\n",
        "m.yaml:4: spec: must be a mapping",
    ),
    "no destination": (
        resource("Route", "r", "rules: [{timeout: 5s}]"),
        "m.yaml:4: spec.destination: this field is required",
    ),
    "a name in capitals": (
        agent("{}", name="Summarizer"),
        "m.yaml:3: metadata.name: name 'Summarizer' is not a valid name: use 1 to 63 lower-case letters, "
        "digits and hyphens, beginning and ending with a letter or digit",
    ),
    "a name that is too long": (
        agent("{}", name="a" * 64),
        "m.yaml:3: metadata.name: must have at most 63 characters",
    ),
    "a name without quotes that is a number": (
        agent("{}", name="7"),
        "m.yaml:3: metadata.name: must be text: put it in quotes",
    ),
    "an agent of a reserved name": (
        agent("{}", name="control"),
        "m.yaml:3: metadata.name: type 'control' is reserved: the mesh itself answers at http://control.mesh/",
    ),
    "a reserved type": (
        policy("target: {type: llm}"),
        "m.yaml:5: spec.target.type: type 'llm' is reserved: the mesh itself answers at http://llm.mesh/",
    ),
    "a type and a capability": (
        policy("target:\n  type: a\n  capability: b"),
        "m.yaml:5: spec.target: give either type or capability",
    ),
    "a version without quotes": (
        agent("version: 1.10"),
        "m.yaml:5: spec.version: must be text: put it in quotes",
    ),
    "a label's key with an equals sign": (
        agent('labels: {"a=b": c}'),
        "m.yaml:5: spec.labels['a=b']: must match pattern '^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$'",
    ),
    "a number for text": (
        agent("capabilities:\n- summarize\n- 5"),
        "m.yaml:7: spec.capabilities[1]: must be text: put it in quotes",
    ),
    "text for a list": (
        agent("capabilities: summarize"),
        "m.yaml:5: spec.capabilities: must be a list",
    ),
    "text for a mapping": (
        agent("health: /health"),
        "m.yaml:5: spec.health: must be a mapping",
    ),
    "text for a number": (
        agent('port: "80"'),
        "m.yaml:5: spec.port: must be a whole number",
    ),
    "a fraction of a number": (
        agent("weight: 1.5"),
        "m.yaml:5: spec.weight: must be a whole number",
    ),
    "a port out of range": (
        agent("port: 70000"),
        "m.yaml:5: spec.port: must be less than or equal to 65535",
    ),
    "a weight of zero": (
        agent("weight: 0"),
        "m.yaml:5: spec.weight: must be greater than or equal to 1",
    ),
    "yes for true": (
        policy("locality: {failover: yes}"),
        "m.yaml:5: spec.locality.failover: must be true or false",
    ),
    "an unknown protocol": (
        agent("protocol: http3"),
        "m.yaml:5: spec.protocol: 'http3' is not known here; did you mean 'http1'?",
    ),
    "a run without a command": (
        agent("run:\n  replicas: 2"),
        "m.yaml:5: spec.run.command: this field is required",
    ),
    "a run with an empty command": (
        agent("run: {command: []}"),
        "m.yaml:5: spec.run.command: must have at least 1 item, not 0",
    ),
    "a run with an empty program": (
        agent('run: {command: [""]}'),
        "m.yaml:5: spec.run.command[0]: the program's name is empty",
    ),
    "replicas that share a port": (
        agent("port: 9000\nrun: {command: [a], replicas: 2}"),
        "m.yaml:5: spec.port: 2 replicas on one machine cannot share a port: omit it, and listen at $PORT",
    ),
    "a bad name of a variable": (
        agent("run:\n  command: [a]\n  environment:\n    1A: x"),
        "m.yaml:8: spec.run.environment.1A: must match pattern '^[A-Za-z_][A-Za-z0-9_]*$'",
    ),
    "a duration without a unit": (
        policy("timeout: 30"),
        "m.yaml:5: spec.timeout: is not a duration: use a number with a unit: 500ms, 30s, 5m, 1h",
    ),
    "an endless duration": (
        policy("timeout: .inf"),
        "m.yaml:5: spec.timeout: is not a duration: use a number with a unit: 500ms, 30s, 5m, 1h",
    ),
    "a duration of zero": (
        policy("timeout: 0s"),
        "m.yaml:5: spec.timeout: must be between 1ms and 24h",
    ),
    "a duration of years": (
        policy("timeout: 99999h"),
        "m.yaml:5: spec.timeout: must be between 1ms and 24h",
    ),
    "an unknown balancing policy": (
        policy("loadBalancing:\n  policy: roundrobin"),
        "m.yaml:6: spec.loadBalancing.policy: 'roundrobin' is not known here; did you mean 'roundRobin'?",
    ),
    "a hash with another policy": (
        policy("loadBalancing:\n  policy: random\n  hashOn: {header: x-user}"),
        "m.yaml:7: spec.loadBalancing.hashOn: goes with policy consistentHash only, not with random",
    ),
    "a slow start with a hash": (
        policy("loadBalancing:\n  policy: consistentHash\n  slowStart: 5s"),
        "m.yaml:7: spec.loadBalancing.slowStart: does not go with policy consistentHash",
    ),
    "a try that may take longer than the call": (
        policy("timeout: 5s\nretries:\n  perTryTimeout: 6s"),
        "m.yaml:7: spec.retries.perTryTimeout: is longer than the timeout of 5s: "
        "no second try would ever be made",
    ),
    "a try that may take longer than calls do by default": (
        rule("retries: {perTryTimeout: 31s}"),
        "m.yaml:7: spec.rules[0].retries.perTryTimeout: is longer than the timeout of 30s: "
        "no second try would ever be made",
    ),
    "too many retries": (
        policy("retries: {attempts: 11}"),
        "m.yaml:5: spec.retries.attempts: must be less than or equal to 10",
    ),
    "a Route without rules": (
        resource("Route", "r", "destination: {type: a}\nrules: []"),
        "m.yaml:6: spec.rules: must have at least 1 item, not 0",
    ),
    "two ways to match a path": (
        rule("match:\n  - path: {prefix: /a, exact: /a}"),
        "m.yaml:8: spec.rules[0].match[0].path: give one of prefix, exact and regex",
    ),
    "a path with a query": (
        rule('match: [{path: {exact: "/a?b"}}]'),
        r"m.yaml:7: spec.rules[0].match[0].path.exact: must match pattern '^/[^\s?#]*$'",
    ),
    "a header to match without a way to": (
        rule("match: [{headers: [{name: x-a}]}]"),
        "m.yaml:7: spec.rules[0].match[0].headers[0]: give one of exact, prefix, regex and present",
    ),
    "a header whose name is none": (
        rule("match: [{headers: [{name: ':path', exact: a}]}]"),
        "m.yaml:7: spec.rules[0].match[0].headers[0].name: ':path' is not the name of a header",
    ),
    "a regular expression that looks ahead": (
        rule('match: [{path: {regex: "/a(?=b)"}}]'),
        "m.yaml:7: spec.rules[0].match[0].path.regex: is not a regular expression that RE2 "
        "supports: invalid perl operator: (?=",
    ),
    "a regular expression that is too complex": (
        rule('match: [{path: {regex: "/[0-9a-f]{64}"}}]'),
        "m.yaml:7: spec.rules[0].match[0].path.regex: is too complex: 133 RE2 instructions, where 90 "
        "are allowed; use fewer or smaller repetitions",
    ),
    "a split among nobody": (
        rule("split: []"),
        "m.yaml:7: spec.rules[0].split: must have at least 1 item, not 0",
    ),
    "a split without a share": (
        rule("split:\n  - {version: '1', weight: 0}\n  - {version: '2', weight: 0}"),
        "m.yaml:7: spec.rules[0].split: gives nobody a share: at least one weight must be above 0",
    ),
    "a split with a negative weight": (
        rule("split: [{version: '1', weight: -1}]"),
        "m.yaml:7: spec.rules[0].split[0].weight: must be greater than or equal to 0",
    ),
    "a split that names the same twice": (
        rule("split:\n  - {type: summarizer, weight: 1}\n  - {weight: 2}"),
        "m.yaml:9: spec.rules[0].split[1]: is there already: add up their weights",
    ),
    "a split of a capability by version": (
        rule("split: [{version: '2', weight: 1}]", "capability: summarize"),
        "m.yaml:7: spec.rules[0].split[0]: must name a type, since the destination, capability 'summarize', "
        "is offered by any number of them",
    ),
    "a mirror of a capability by version": (
        rule("mirror: {version: '2'}", "capability: summarize"),
        "m.yaml:7: spec.rules[0].mirror: must name a type, since the destination, capability 'summarize', "
        "is offered by any number of them",
    ),
    "a mirror to itself": (
        rule("mirror: {type: summarizer}"),
        "m.yaml:7: spec.rules[0].mirror: leads type 'summarizer' to itself: every call would be made twice",
    ),
    "a percentage above a hundred": (
        rule("mirror: {type: shadow, percent: 101}"),
        "m.yaml:7: spec.rules[0].mirror.percent: must be less than or equal to 100",
    ),
    "a header that is the connection's": (
        rule("requestHeaders:\n    set:\n      Host: a"),
        "m.yaml:9: spec.rules[0].requestHeaders.set.Host: header 'Host' is the mesh's own to set: "
        "a Route cannot change it",
    ),
    "a header that is the mesh's": (
        rule("responseHeaders:\n    remove:\n    - X-Weft-Error"),
        "m.yaml:9: spec.rules[0].responseHeaders.remove[0]: header 'X-Weft-Error' is the mesh's own to set: "
        "a Route cannot change it",
    ),
    "a header of one hop": (
        rule("requestHeaders: {add: {transfer-encoding: chunked}}"),
        "m.yaml:7: spec.rules[0].requestHeaders.add.transfer-encoding: header 'transfer-encoding' is the "
        "mesh's own to set: a Route cannot change it",
    ),
    "a header that is changed twice": (
        rule("requestHeaders: {set: {X-A: a}, remove: [x-a]}"),
        "m.yaml:7: spec.rules[0].requestHeaders: header 'x-a' is changed twice",
    ),
    "a header's value on two lines": (
        rule(r'requestHeaders: {set: {x-a: "a\nx-b: c"}}'),
        r"m.yaml:7: spec.rules[0].requestHeaders.set.x-a: must match pattern '^[\t\x20-\x7e\x80-\xff]*$'",
    ),
    "a fault that does nothing": (
        rule("fault: {}"),
        "m.yaml:7: spec.rules[0].fault: give delay, abort, or both",
    ),
    "a fault that answers 200": (
        rule("fault: {abort: {status: 200}}"),
        "m.yaml:7: spec.rules[0].fault.abort.status: must be greater than or equal to 400",
    ),
    "a field given twice": (
        agent("port: 80\nport: 81"),
        "m.yaml:6: spec.port: given twice, first on line 5",
    ),
    "an anchor": (
        agent("version: &v '1'"),
        "m.yaml:5: spec.version: anchors are not allowed",
    ),
    "a tag": (
        agent("version: !!python/name:os.system x"),
        "m.yaml:5: spec.version: tags are not allowed",
    ),
    "a key that is a list": (
        agent("? [a]\n: b"),
        "m.yaml:5: spec: a key must be plain text",
    ),
    "a control character": (
        agent(r'description: "a\0b"'),
        "m.yaml:5: spec.description: control characters are not allowed",
    ),
    "an unreadable character": (
        agent("description: a\x07"),
        "m.yaml:5: the character '\\x07' is not allowed",
    ),
    "half a character": (
        agent("description: \ud800"),
        "m.yaml:5: the character '\\ud800' is not allowed",
    ),
    "a bracket that is not closed": (
        "kind: Agent\nspec: [a,\n",
        "m.yaml:3: while parsing a flow node, did not find expected node content",
    ),
    "a nest without a bottom": (
        "[" * 200_000,
        "m.yaml:1: nested deeper than 32 levels",
    ),
    "nothing": (
        "# no resource\n---\n",
        "m.yaml: the manifest declares no resource",
    ),
    "more bytes than allowed": (
        "#" * (MAX_MANIFEST_BYTES + 1),
        "m.yaml: the manifest is larger than 1048576 bytes",
    ),
    "more values than allowed": (
        "a:\n" + "  - {x: 1}\n" * 90_000,
        "m.yaml:50000: more values than one manifest may hold",
    ),
    "the same resource twice": (
        together(agent("{}"), agent("{}")),
        "m.yaml:9: metadata.name: Agent 'summarizer' is declared already, on line 3",
    ),
    "two Routes for one destination": (
        together(route("a", "x", "y"), route("b", "x", "z")),
        "m.yaml:13: spec.destination: Route 'a' is for destination type 'x' already: "
        "there can be one only, so merge them",
    ),
    "two policies for one target": (
        together(policy("target: {capability: x}", "a"), policy("target: {capability: x}", "b")),
        "m.yaml:11: spec.target: TrafficPolicy 'a' is for target capability 'x' already: "
        "there can be one only, so merge them",
    ),
    "two policies for the whole mesh": (
        together(policy("{}", "a"), policy("{}", "b")),
        "m.yaml:10: spec.target: TrafficPolicy 'a' is for the mesh's default (it has no target) already: "
        "there can be one only, so merge them",
    ),
    "two Telemetries for one target": (
        together(telemetry("target: {type: x}", "a"), telemetry("target: {type: x}", "b")),
        "m.yaml:11: spec.target: Telemetry 'a' is for target type 'x' already: "
        "there can be one only, so merge them",
    ),
    "what was said to a capability": (
        telemetry("target: {capability: x}\nrecording: {messages: true}"),
        "m.yaml:6: spec.recording: goes with a type: an agent does not know by which of its capabilities it "
        "was called",
    ),
    "a share of calls beyond all": (
        telemetry("tracing: {samplingPercent: 101}"),
        "m.yaml:5: spec.tracing.samplingPercent: must be less than or equal to 100",
    ),
    "a redaction that is no expression": (
        telemetry("recording: {redact: ['(']}"),
        "m.yaml:5: spec.recording.redact[0]: is not a regular expression that RE2 supports",
    ),
    "a redaction of nothing": (
        telemetry("recording: {redact: ['a*']}"),
        "m.yaml:5: spec.recording.redact[0]: matches nothing at all too: it would be found everywhere",
    ),
    "an address without a port": (
        external("endpoints: [crm.example]"),
        "m.yaml:5: spec.endpoints[0]: must be host:port, as crm.example:80, 10.0.0.7:8080 or [fd00::7]:8080",
    ),
    "an address of IPv6 without brackets": (
        external("endpoints: ['fd00::7:80']"),
        "m.yaml:5: spec.endpoints[0]: must have its IPv6 address in brackets, as [fd00::7]:8080",
    ),
    "an address of anybody": (
        external("endpoints: ['0.0.0.0:80']"),
        "m.yaml:5: spec.endpoints[0]: 0.0.0.0 is not the address of one server",
    ),
    "an address in the mesh": (
        external("endpoints: ['summarizer.mesh:80']"),
        "m.yaml:5: spec.endpoints[0]: is in the mesh's own domain: this is about hosts outside of it",
    ),
    "an address that is there twice": (
        external("endpoints: ['a:1', 'b:1', 'a:1']"),
        "m.yaml:5: spec.endpoints: has a:1 twice",
    ),
    "a certificate of an address": (
        external("tls: server\nendpoints: ['crm.example:443', '10.0.0.7:443']"),
        "m.yaml:6: spec.endpoints[1]: goes by its name with tls: certificates are of names",
    ),
    "an agent without a sidecar in the mesh's own name": (
        external(name="control"),
        "m.yaml:3: metadata.name: type 'control' is reserved: the mesh itself answers at http://control.mesh/",
    ),
    "a type with sidecars and without": (
        together(agent("{}"), external(name="summarizer")),
        "m.yaml:9: metadata.name: there is Agent 'summarizer': agents of a type have sidecars, or none has",
    ),
    "a capability with sidecars and without": (
        together(
            external("endpoints: ['a:1']\ncapabilities: [find, summarize]"),
            agent("capabilities: [summarize]"),
        ),
        "m.yaml:6: spec.capabilities[1]: Agent 'summarizer' offers 'summarize': agents with a capability "
        "have sidecars, or none has",
    ),
    "a capability by two protocols": (
        together(
            external("endpoints: ['a:1']\ncapabilities: [find]"),
            external("endpoints: ['b:1']\nprotocol: h2c\ncapabilities: [find]", name="erp"),
        ),
        "m.yaml:14: spec.capabilities[0]: ExternalAgent 'crm' offers 'find' by another protocol, or with "
        "another tls: have both the same",
    ),
    "a gateway that listens at a name": (
        resource("Gateway", "front", "host: localhost"),
        "m.yaml:5: spec.host: must be an IP address, such as 0.0.0.0 for all of the machine's",
    ),
    "an issuer of tokens twice": (
        resource(
            "Gateway",
            "front",
            "jwt:\n"
            "- {issuer: x, audiences: [a], jwksUrl: 'http://x/'}\n"
            "- {issuer: x, audiences: [b], jwksUrl: 'http://x/'}",
        ),
        "m.yaml:7: spec.jwt[1].issuer: stands here already: name all its audiences there",
    ),
    "splits that go in a circle": (
        together(route("a", "x", "y"), route("b", "y", "z"), route("c", "z", "x")),
        "m.yaml:22: spec.rules: splits go in a circle: z → x → y → z",
    ),
}


@pytest.mark.parametrize(("text", "problem"), WRONG.values(), ids=WRONG.keys())
def test_refused_with_file_line_and_field(text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_all_problems_of_all_documents_are_told_in_the_order_in_which_they_stand() -> None:
    text = together(
        agent("port: 0\nprotocl: h2c\nhealth: {interval: 1}"),
        policy("timeout: never"),
        "kind: Nonsense\n",
        agent("{}", name="fine"),
        agent("description: &x [*x]", name="last"),
    )
    places = [problem.partition(": ")[0] for problem in problems(text)]
    lines = [int(place.removeprefix("m.yaml:")) for place in places]
    assert lines[:5] == [5, 6, 7, 13, 15]
    assert lines == sorted(lines)


def test_what_was_wrong_before_a_syntax_error_is_told_too() -> None:
    found = problems(together(agent("port: 0"), "a: [\n"))
    assert [each.split(":")[1] for each in found] == ["5", "8"]


def test_no_more_problems_are_told_than_can_be_read() -> None:
    found = problems("---\n".join("kind: X\n" for _ in range(300)))
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == "and 200 more problems"


def test_as_many_resources_as_allowed_are_read_and_no_more() -> None:
    documents = [agent("{}", name=f"a-{index}") for index in range(MAX_RESOURCES)]
    assert len(parse_manifest(together(*documents))) == MAX_RESOURCES
    assert problems(together(*documents, agent("{}"))) == ["m.yaml: more than 1000 resources in one manifest"]


def test_a_long_word_is_not_repeated_whole() -> None:
    assert max(len(each) for each in problems(agent(f"{'x' * 5000}: 1"))) < 400


def test_secrets_of_the_environment_do_not_appear_in_problems() -> None:
    text = agent("run: {command: [a], environment: {TOKEN: 123456789, OTHER: [hunter2]}}")
    assert not [each for each in problems(text) if "123456789" in each or "hunter2" in each]


def test_what_is_left_out_has_its_default() -> None:
    found = spec(agent("{}"))
    assert isinstance(found, AgentSpec)
    assert (found.health.path, found.health.interval, found.health.timeout) == (None, 10.0, 2.0)
    assert (found.drain_timeout, found.weight, found.port, found.run) == (30.0, 1, None, None)
    traffic = spec(policy("{}"))
    assert isinstance(traffic, TrafficPolicySpec)
    assert (traffic.timeout, traffic.idle_timeout, traffic.retries.attempts) == (30.0, 300.0, 3)
    assert traffic.load_balancing.policy is BalancingPolicy.ROUND_ROBIN
    assert traffic.load_balancing.hash_on.header == "x-weft-context"


def test_plain_words_mean_what_yaml_1_2_says() -> None:
    run = spec(agent("run: {command: [yes, off, 1_000, 0x1F, 1:30, 2026-01-01, 007, 1e5, =, <<]}")).run
    assert run.command == ("yes", "off", "1_000", "0x1F", "1:30", "2026-01-01", "007", "1e5", "=", "<<")


def test_json_is_read_as_well() -> None:
    document = {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "a"},
        "spec": {"description": 'tab\t "quoted" / é', "weight": 3},
    }
    for indent in (None, 2, "\t"):
        [found] = parse_manifest(json.dumps(document, indent=indent))
        assert found.document() == document


def test_a_canary_that_names_its_own_type_is_no_circle() -> None:
    found = spec(route("a", "x", "x", "y"))
    assert isinstance(found, RouteSpec)


def test_a_policys_own_timeout_counts_for_the_tries_of_its_destinations_routes() -> None:
    slow = rule("retries: {perTryTimeout: 40s}")
    parse_manifest(together(slow, policy("target: {type: summarizer}\ntimeout: 1m")))
    parse_manifest(together(slow, policy("timeout: 1m"), policy("target: {type: summarizer}", "own")))
    with pytest.raises(InvalidResource):
        parse_manifest(together(slow, policy("target: {type: other}\ntimeout: 1m")))


def test_what_is_applied_is_checked_against_what_is_stored() -> None:
    stored = parse_manifest(route("a", "x", "y"))
    with pytest.raises(InvalidResource) as caught:
        check_together(parse_documents(route("b", "y", "x"), "m.yaml"), stored)
    assert str(caught.value) == "m.yaml:6: spec.rules: splits go in a circle: y → x → y"
    check_together(parse_documents(route("a", "x", "z"), "m.yaml"), stored)


def test_a_problem_that_is_made_in_a_stored_resource_names_that() -> None:
    stored = parse_manifest(rule("retries: {perTryTimeout: 20s}"))
    with pytest.raises(InvalidResource) as caught:
        check_together(parse_documents(policy("timeout: 5s"), "m.yaml"), stored)
    assert "route.route, which is declared already, is longer than the timeout of 5s" in str(caught.value)


def test_what_was_wrong_in_the_store_before_blocks_nobody_else() -> None:
    wrong = parse_documents(route("a", "x", "y")) + parse_documents(route("b", "y", "x"))
    stored = [each.resource for each in wrong]
    check_together(parse_documents(agent("{}")), stored)
    with pytest.raises(InvalidResource):
        check_together(parse_documents(route("b", "y", "x")), stored)


def test_a_long_chain_of_splits_is_checked_quickly() -> None:
    chain = together(*(route(f"r-{index}", f"t-{index}", f"t-{index + 1}") for index in range(900)))
    assert len(parse_manifest(chain)) == 900
    closed = together(chain, route("last", "t-900", "t-0"))
    assert len(problems(closed)) == 1


@pytest.mark.parametrize("file", FIXTURES, ids=lambda path: path.stem)
def test_what_is_dumped_is_read_as_the_same(file: Path) -> None:
    before = parse_manifest(file.read_text(), file.name)
    after = parse_manifest(dump_manifest(before))
    assert [each.document() for each in after] == [each.document() for each in before]
    assert after == before


@pytest.mark.parametrize(
    "text",
    [
        *(
            "yes",
            "null",
            "~",
            "",
            "1",
            "08",
            "1e5",
            "+.5",
            "1_0",
            "0x1",
            "1:30",
            "2026-01-01",
            "=",
            "<<",
            "1.0",
        ),
        *(
            "true",
            "TRUE",
            "- a",
            "a: b",
            "#x",
            " a ",
            "a\nb\n",
            "\t",
            "%",
            "@x",
            "!x",
            "&x",
            "*x",
            "'",
            '"',
            "[",
        ),
        *("{", "é😀"),
    ],
)
def test_any_text_survives_a_round_trip(text: str) -> None:
    document = {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "a"},
        "spec": {"description": text},
    }
    [first] = parse_manifest(json.dumps(document, ensure_ascii=False))
    [again] = parse_manifest(dump_manifest([first]))
    assert again.document() == document


def test_what_was_declared_is_told_from_what_is_default() -> None:
    [found] = parse_manifest(policy("timeout: 30s\nloadBalancing: {policy: roundRobin}"))
    assert found.document()["spec"] == {"timeout": "30s", "loadBalancing": {"policy": "roundRobin"}}
    assert found.spec.model_fields_set == {"timeout", "load_balancing"}


def test_resources_cannot_be_changed() -> None:
    [found] = parse_manifest(agent("{}"))
    with pytest.raises(ValueError, match="frozen"):
        found.spec.weight = 5


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("agent", "Agent"),
        ("Agents", "Agent"),
        ("ROUTE", "Route"),
        ("trafficpolicies", "TrafficPolicy"),
        ("TrafficPolicy", "TrafficPolicy"),
        ("pods", None),
        ("", None),
    ],
)
def test_kinds_are_known_in_singular_and_plural(given: str, kind: str | None) -> None:
    assert canonical_kind(given) == kind
