from __future__ import annotations

import asyncio
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.extensions.bootstrap.internal_listener.v3 import internal_listener_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.json_format import MessageToDict, Parse
from tests.pki import Pki
from tests.sds import write_secrets

from weft.model.agent import Locality
from weft.model.mcp_wire import SESSIONS_CLUSTER
from weft.model.node import Address, AgentProtocol, Inbound, Node
from weft.sidecar.bootstrap import bootstrap, sessions_socket
from weft.sidecar.envoy import envoy_program
from weft.sidecar.exit_codes import CannotRun, ExitCode
from weft.sidecar.program import check_command, environment

OUTBOUND = Address("127.0.0.1", 15001)
CALLER = Node("script", OUTBOUND)
INBOUND = Inbound("summarizer", Address("127.0.0.1", 15006), Address("127.0.0.1", 8001))
AGENT = Node("s1", OUTBOUND, INBOUND, Locality("eu", "a"))
GUARDED = replace(AGENT, stream_guard=True)
TOOLS = Node("s1", OUTBOUND, replace(INBOUND, protocol=AgentProtocol.MCP))
GRPC_AGENT = Node("s1", OUTBOUND, replace(INBOUND, protocol=AgentProtocol.H2C))

# Parsing the JSON needs the messages it contains to be known.
assert http_protocol_options_pb2.DESCRIPTOR
assert internal_listener_pb2.DESCRIPTOR
assert downstream_connections_pb2.DESCRIPTOR


def made_for(node: Node, *xds: Address) -> str:
    config = bootstrap(
        node,
        xds=xds or (Address("127.0.0.1", 18000),),
        admin_socket=Path("/tmp/weft/admin.sock"),
        max_connections=100,
        mcp_sessions=sessions_socket(Path("/tmp/weft"), node.inbound),
    )
    return json.dumps(config)


@pytest.mark.parametrize("node", [CALLER, AGENT, GUARDED], ids=["caller", "agent", "guarded"])
def test_the_control_plane_finds_the_node_in_the_metadata(node: Node) -> None:
    # Parsing would also fail on a field that Envoy's own proto does not have.
    parsed = Parse(made_for(node), Bootstrap(), ignore_unknown_fields=False)
    assert parsed.node.id == node.key
    assert Node.from_metadata(MessageToDict(parsed.node.metadata)["weft"]) == node


@pytest.mark.parametrize(("node", "expected"), [(TOOLS, ["/tmp/weft/mcp.sock"]), (AGENT, []), (CALLER, [])])
def test_sessions_are_kept_beside_mcp_servers_at_a_socket(node: Node, expected: list[str]) -> None:
    clusters = Parse(made_for(node), Bootstrap()).static_resources.clusters
    found = [each for each in clusters if each.name == SESSIONS_CLUSTER]
    endpoints = [part.lb_endpoints[0].endpoint for each in found for part in each.load_assignment.endpoints]
    assert [each.address.pipe.path for each in endpoints] == expected


def test_the_admin_interface_is_a_socket_for_this_user_only() -> None:
    admin = Parse(made_for(AGENT), Bootstrap()).admin.address.pipe
    assert admin.mode == stat.S_IRUSR | stat.S_IWUSR
    assert admin.path == "/tmp/weft/admin.sock"


def test_control_planes_given_by_name_are_looked_up() -> None:
    by_name = Parse(made_for(AGENT, Address("control", 18000)), Bootstrap())
    by_address = Parse(made_for(AGENT, Address("::1", 1), Address("10.0.0.1", 2)), Bootstrap())
    clusters = [each.static_resources.clusters[0] for each in (by_name, by_address)]
    assert [Cluster.DiscoveryType.Name(cluster.type) for cluster in clusters] == ["STRICT_DNS", "STATIC"]
    assert len(clusters[1].load_assignment.endpoints[0].lb_endpoints) == 2


def test_the_control_plane_must_prove_that_it_is_one_of_the_trust_domain() -> None:
    (cluster, *_) = Parse(made_for(AGENT), Bootstrap()).static_resources.clusters
    context = UpstreamTlsContext()
    assert cluster.transport_socket.typed_config.Unpack(context)
    validation = context.common_tls_context.combined_validation_context
    (name,) = validation.default_validation_context.match_typed_subject_alt_names
    assert name.matcher.prefix == "spiffe://weft.local/control/"


def test_the_agent_is_a_cluster_of_its_protocol() -> None:
    for node, field in ((AGENT, "http_protocol_options"), (GRPC_AGENT, "http2_protocol_options")):
        clusters = {each.name: each for each in Parse(made_for(node), Bootstrap()).static_resources.clusters}
        agent = clusters["agent"]
        options = http_protocol_options_pb2.HttpProtocolOptions()
        (packed,) = agent.typed_extension_protocol_options.values()
        assert packed.Unpack(options)
        assert options.explicit_http_config.HasField(field)
        (endpoint,) = agent.load_assignment.endpoints[0].lb_endpoints
        assert endpoint.endpoint.address.socket_address.port_value == 8001


def test_a_sidecar_that_only_calls_has_no_agent() -> None:
    clusters = Parse(made_for(CALLER), Bootstrap()).static_resources.clusters
    assert [each.name for each in clusters] == ["xds", "telemetry", "mesh"]


@pytest.mark.parametrize("node", [CALLER, GUARDED, GRPC_AGENT], ids=["caller", "guarded", "grpc"])
async def test_envoy_accepts_the_bootstrap(node: Node, tmp_path: Path) -> None:
    write_secrets(tmp_path, Pki(), "spiffe://weft.local/agent/summarizer/s1")
    file = tmp_path / "bootstrap.json"
    file.write_text(made_for(node))
    process = await asyncio.create_subprocess_exec(
        *(envoy_program(), "--mode", "validate", "--config-path", str(file), "--log-level", "warning"),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        cwd=tmp_path,
    )
    _, complaints = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, complaints.decode()) == (0, "")


def test_a_program_is_told_its_port_and_its_way_out() -> None:
    told = environment({"PATH": "/bin"}, AGENT, Path("/run/a"), "weft.local")
    assert told == {
        "PATH": "/bin",
        "PORT": "8001",
        "WEFT_PORT": "8001",
        "WEFT_TYPE": "summarizer",
        "WEFT_INSTANCE": "s1",
        "WEFT_PROXY": "http://127.0.0.1:15001",
        "WEFT_CONTROL": "http://control.mesh",
        "WEFT_LLM_URL": "http://127.0.0.1:15001/v1",
        "OPENAI_BASE_URL": "http://127.0.0.1:15001/v1",
        "OPENAI_API_KEY": "weft",
        "WEFT_IDENTITY_DIR": "/run/a",
        "HTTP_PROXY": "http://127.0.0.1:15001",
        "http_proxy": "http://127.0.0.1:15001",
        "HTTPS_PROXY": "http://127.0.0.1:15001",
        "https_proxy": "http://127.0.0.1:15001",
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "no_proxy": "localhost,127.0.0.1,::1",
        "WEFT_TRACE_SAMPLING": "1",
        "OTEL_SERVICE_NAME": "summarizer",
        "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=s1,service.namespace=weft.local",
        "OTEL_PROPAGATORS": "tracecontext,baggage",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:15001/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-weft-to=control",
    }


def test_what_a_program_is_told_of_tracing_is_left_to_who_said_it_before() -> None:
    own = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_RESOURCE_ATTRIBUTES": "team=a,service.instance.id=mine",
        "OTEL_SERVICE_NAME": "other",
        "WEFT_TRACE_SAMPLING": "50",
    }
    told = environment(own, CALLER, Path("/run/a"), "weft.local")
    assert {name: value for name, value in told.items() if name.startswith(("OTEL_", "WEFT_TRACE"))} == {
        **own,
        "OTEL_RESOURCE_ATTRIBUTES": "team=a,service.instance.id=mine,service.namespace=weft.local",
        "OTEL_PROPAGATORS": "tracecontext,baggage",
    }
    version = replace(AGENT, inbound=replace(INBOUND, version="1,=2"), trace_sampling=0.5)
    told = environment({}, version, Path("/run/a"), "weft.local")
    assert "service.version=1%2C%3D2" in told["OTEL_RESOURCE_ATTRIBUTES"].split(",")
    assert told["WEFT_TRACE_SAMPLING"] == "0.5"


@pytest.mark.parametrize("own", [{"OPENAI_API_KEY": "sk-own"}, {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}])
def test_a_program_whose_user_chose_a_provider_of_models_keeps_to_it(own: dict[str, str]) -> None:
    told = environment({**own, "WEFT_LLM_URL": "http://127.0.0.1:2/v1"}, AGENT, Path("/run/a"), "weft.local")
    assert {name: each for name, each in told.items() if name.startswith("OPENAI")} == own
    assert told["WEFT_LLM_URL"] == "http://127.0.0.1:2/v1"


def test_a_program_that_only_calls_is_told_no_port() -> None:
    assert not environment({}, CALLER, Path("/run/a"), "weft.local").keys() & {
        "PORT",
        "WEFT_PORT",
        "WEFT_TYPE",
    }


def test_hosts_that_need_no_proxy_are_kept() -> None:
    told = environment({"NO_PROXY": "intranet.example, localhost"}, CALLER, Path("/run/a"), "weft.local")
    assert told["NO_PROXY"] == told["no_proxy"] == "intranet.example,localhost,127.0.0.1,::1"


def test_a_program_that_cannot_run_is_refused_as_a_shell_does(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("no program")
    check_command(("sh", "-c", "true"), {"PATH": "/usr/bin:/bin"})
    for name, code in (
        ("no-such-program", ExitCode.NOT_FOUND),
        (str(tmp_path / "missing"), ExitCode.NOT_FOUND),
        (str(plain), ExitCode.CANNOT_EXECUTE),
    ):
        with pytest.raises(CannotRun, match=name) as refused:
            check_command((name,), {"PATH": "/usr/bin:/bin"})
        assert refused.value.exit_code == code
