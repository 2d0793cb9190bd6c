from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from weft.aio.guard import Guard
from weft.errors import InvalidRequest
from weft.model.agent import Locality
from weft.model.node import Address, AgentProtocol, Node
from weft.sidecar.arguments import parse_arguments
from weft.sidecar.plan import make_plan
from weft.sidecar.settings import HealthSettings, SidecarSettings

BUNDLE = Path("/etc/weft/bundle.pem")
TOKEN = "weft_join_x"
PROOF = {"WEFT_TRUST_BUNDLE": str(BUNDLE), "WEFT_JOIN_TOKEN": TOKEN}


def settings(**changes: Any) -> SidecarSettings:
    proof = {"trust_bundle": BUNDLE, "join_token": TOKEN}
    return SidecarSettings(**{"environ": {}, "type": "summarizer", "agent_port": 8001, **proof, **changes})


def test_an_instance_without_a_name_gets_one_of_its_type_and_five_characters() -> None:
    first, second = settings(), settings()
    assert first.id.startswith("summarizer-")
    assert len(first.id) == len("summarizer-") + 5
    assert first.id != second.id


def test_the_longest_type_leaves_room_for_a_chosen_name() -> None:
    assert len(settings(type="t" * 63).id) == 63


def test_others_are_told_the_address_it_binds_unless_another_is_given() -> None:
    assert settings(bind_host="10.1.2.3").advertise_host == "10.1.2.3"
    assert settings(bind_host="0.0.0.0", advertise_host="10.1.2.4").advertise_host == "10.1.2.4"


def test_a_sidecar_without_a_type_only_calls() -> None:
    caller = settings(type=None, agent_port=None)
    assert caller.type is None
    assert caller.id.startswith("client-")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "Not_A_Label"}, "Not_A_Label"),
        ({"type": "control"}, "reserved"),
        ({"id": "a.b"}, "a.b"),
        ({"capabilities": frozenset({"with space"})}, "with space"),
        ({"agent_port": None}, "neither a command nor a port"),
        ({"agent_port": 70000}, "agent port 70000"),
        ({"inbound_port": 0}, "inbound port 0"),
        ({"bind_host": "localhost"}, "not an IP address"),
        ({"bind_host": "0.0.0.0"}, "advertise host"),
        ({"advertise_host": "agents.example"}, "not an IP address"),
        ({"weight": 0}, "weight 0"),
        ({"weight": 1001}, "weight 1001"),
        ({"nats_servers": ()}, "NATS"),
        ({"xds_addresses": ()}, "control plane"),
        ({"api_addresses": ()}, "control plane"),
        ({"trust_bundle": None}, "cannot prove who it is"),
        ({"join_token": ""}, "cannot prove who it is"),
        ({"renew_interval": 6.0}, "renew interval 6"),
        ({"lease_ttl": 0.5}, "lease ttl"),
        ({"drain_timeout": -1.0}, "drain timeout -1"),
        ({"drain_timeout": float("nan")}, "drain timeout nan"),
        ({"log_level": "loud"}, "loud"),
        ({"trace_sampling": 100.5}, "trace sampling 100.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        settings(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "health"},
        {"path": "/a b"},
        {"path": "/a\r\nX: y"},
        {"interval": 0.0},
        {"timeout": 0.0},
        {"healthy_threshold": 0},
        {"unhealthy_threshold": 101},
    ],
)
def test_health_settings_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        HealthSettings(**changes)


def test_neither_the_environment_of_the_program_nor_the_token_show_in_logs() -> None:
    assert "hunter2" not in repr(settings(environ={"PASSWORD": "hunter2"}, join_token="hunter2"))


def test_the_program_does_not_get_what_the_sidecar_proves_itself_with(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    for given in ({"WEFT_JOIN_TOKEN": TOKEN}, {"WEFT_JOIN_TOKEN_FILE": str(file)}):
        parsed = parse_arguments(["--trust-bundle", str(BUNDLE), "--", "true"], {"PATH": "/bin", **given})
        assert parsed.join_token == TOKEN
        assert parsed.environ == {"PATH": "/bin"}


def test_the_program_does_not_get_the_token_of_the_operator_who_started_it() -> None:
    environ = {"PATH": "/bin", "WEFT_TOKEN": "an admin's", **PROOF}
    parsed = parse_arguments(["--", "true"], environ)
    assert "an admin's" not in parsed.environ.values()


def test_a_token_that_cannot_be_read_is_told_with_its_file(tmp_path: Path) -> None:
    missing = str(tmp_path / "token")
    with pytest.raises(InvalidRequest, match=missing):
        parse_arguments(["--", "true"], {"WEFT_JOIN_TOKEN_FILE": missing})


def test_the_command_line_gives_every_setting() -> None:
    parsed = parse_arguments(
        [
            *("--type", "summarizer", "--id", "s1", "--capability", "summarize", "--capability", "translate"),
            *("--version", "2", "--label", "tier=gold", "--weight", "5", "--region", "eu", "--zone", "a"),
            *(
                "--protocol",
                "mcp",
                "--mcp-path",
                "/tools",
                "--port",
                "8001",
                "--bind",
                "0.0.0.0",
                "--advertise",
                "10.0.0.1",
            ),
            *("--nats", "nats://one:4222, nats://two:4222", "--xds", "10.0.0.2:18000,[::1]:18001"),
            *("--api", "https://10.0.0.2:7400, https://[::1]:7400/", "--trust-bundle", "bundle.pem"),
            *("--trust-refresh", "60", "--trace-sampling", "2.5"),
            *("--health-path", "", "--health-interval", "5", "--unhealthy-threshold", "2"),
            *("--drain-timeout", "7", "--log-level", "debug", "--", "python", "--", "-u", "agent.py"),
        ],
        {"PATH": "/bin", "WEFT_JOIN_TOKEN": TOKEN},
    )
    assert parsed == SidecarSettings(
        environ={"PATH": "/bin"},
        type="summarizer",
        id="s1",
        capabilities=frozenset({"summarize", "translate"}),
        version="2",
        labels={"tier": "gold"},
        weight=5,
        locality=Locality("eu", "a"),
        protocol=AgentProtocol.MCP,
        mcp_path="/tools",
        agent_port=8001,
        bind_host="0.0.0.0",
        advertise_host="10.0.0.1",
        nats_servers=("nats://one:4222", "nats://two:4222"),
        xds_addresses=(Address("10.0.0.2", 18000), Address("::1", 18001)),
        api_addresses=(Address("10.0.0.2", 7400), Address("::1", 7400)),
        trust_bundle=Path("bundle.pem"),
        join_token=TOKEN,
        trust_refresh=60.0,
        trace_sampling=2.5,
        health=HealthSettings(path="", interval=5.0, unhealthy_threshold=2),
        drain_timeout=7.0,
        log_level="debug",
        command=("python", "--", "-u", "agent.py"),
    )


def test_servers_come_from_the_environment_unless_given() -> None:
    environ = {"WEFT_NATS": "nats://n:1", "WEFT_XDS": "x:2", "WEFT_API": "https://a:3", **PROOF}
    from_environ = parse_arguments(["--", "true"], environ)
    assert from_environ.nats_servers == ("nats://n:1",)
    assert from_environ.xds_addresses == (Address("x", 2),)
    assert from_environ.api_addresses == (Address("a", 3),)
    assert from_environ.trust_bundle == BUNDLE
    assert parse_arguments(["--nats", "nats://m:3", "--", "true"], environ).nats_servers == ("nats://m:3",)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--label", "nonsense"],
        ["--mcp-path", "tools", "--", "true"],
        ["--mcp-path", "/to ols", "--", "true"],
        ["--health-path", "health", "--", "true"],
        ["--xds", "no-port"],
        ["--xds", ""],
        ["--api", "http://127.0.0.1:7400"],
        ["--api", "https://no-port"],
        ["--type", "t"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        parse_arguments(arguments, PROOF)


@pytest.mark.parametrize("arguments", [["--bogus"], ["agent.py"], ["--weight", "many"]])
def test_unknown_arguments_end_with_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments, {})
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "port"),
    [([], 0), (["--metrics-port=0"], 0), (["--metrics-port=9000"], 9000)]
    + [([f"--metrics-port={off}"], None) for off in ("none", "-1")],
)
def test_metrics_are_shown_at_any_free_port_unless_told_otherwise(given: list[str], port: int | None) -> None:
    parsed = parse_arguments([*given, "--", "true"], PROOF)
    assert (parsed.metrics_host, parsed.metrics_port) == ("127.0.0.1", port)


@pytest.mark.parametrize("text", ["many", "", "70000"])
def test_a_port_of_metrics_that_is_none_is_refused(text: str) -> None:
    with pytest.raises((SystemExit, InvalidRequest)):
        parse_arguments([f"--metrics-port={text}", "--", "true"], PROOF)


async def test_others_are_told_where_metrics_are_if_they_are_shown(tmp_path: Path) -> None:
    anywhere = {"metrics_host": "0.0.0.0", "bind_host": "127.0.0.1", "advertise_host": "127.0.0.2"}
    async with Guard() as guard:
        with ExitStack() as ports:

            def node(**changes: Any) -> Node:
                return make_plan(settings(runtime_parent=tmp_path, **changes), guard, ports).node

            shown = node().metrics
            assert shown is not None
            assert (shown.host, shown.port > 0) == ("127.0.0.1", True)
            elsewhere = node(**anywhere)
            assert elsewhere.metrics is not None
            assert elsewhere.metrics.host == "127.0.0.2"
            assert Node.from_metadata(elsewhere.metadata()) == elsewhere
            hidden = node(metrics_port=None)
            assert hidden.metrics is None
            assert Node.from_metadata(hidden.metadata()) == hidden


def test_probes_of_the_agent_are_named_with_the_path_that_is_asked_for() -> None:
    given = parse_arguments(["--type=s", "--port=8001", "--probe=liveness=/health?a=b", "--probe=up="], PROOF)
    assert given.probes == {"liveness": "/health?a=b", "up": ""}
    assert settings().probes == {}


@pytest.mark.parametrize("probe", ["liveness", "Not A Name=/", "liveness=health", "liveness=/a b"])
def test_a_probe_that_is_none_is_refused(probe: str) -> None:
    with pytest.raises(InvalidRequest, match="probe"):
        parse_arguments(["--type=s", "--port=8001", f"--probe={probe}"], PROOF)
