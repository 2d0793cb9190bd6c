"""The command line of `python -m weft.sidecar`.

argparse, since anything more comfortable costs every sidecar its memory and its start-up time.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.errors import InvalidRequest
from weft.model.agent import Locality
from weft.model.event_format import EventFormat
from weft.model.node import Address, AgentProtocol, parse_address
from weft.model.operator import TOKEN_VARIABLE
from weft.sidecar.settings import (
    DEFAULT_API,
    DEFAULT_NATS,
    DEFAULT_XDS,
    Consumption,
    EventIntake,
    HealthSettings,
    SidecarSettings,
)

NATS_VARIABLE = "WEFT_NATS"
"""Environment variable: URLs of NATS servers, separated by commas."""
XDS_VARIABLE = "WEFT_XDS"
"""Environment variable: `host:port` of the control plane's replicas, separated by commas."""
API_VARIABLE = "WEFT_API"
"""Environment variable: URLs of the replicas' API (`https://host:port`), separated by commas."""
TRUST_BUNDLE_VARIABLE = "WEFT_TRUST_BUNDLE"
"""Environment variable: file with the roots of the mesh, PEM."""
JOIN_TOKEN_VARIABLE = "WEFT_JOIN_TOKEN"  # noqa: S105 -- its name
"""Environment variable: the sidecar's join token. Its program does not get to see it."""
JOIN_TOKEN_FILE_VARIABLE = "WEFT_JOIN_TOKEN_FILE"  # noqa: S105 -- its name
"""Environment variable: a file that holds the join token."""
TRUST_REFRESH_VARIABLE = "WEFT_TRUST_REFRESH"
"""Environment variable: seconds after which it is asked again what is to be trusted."""

SERVICE_ACCOUNT_VARIABLE = "WEFT_SERVICE_ACCOUNT_TOKEN_FILE"
"""Environment variable: the file of the service account token, on Kubernetes."""

_MAX_TOKEN_BYTES = 4096
_SECRET_VARIABLES = (JOIN_TOKEN_VARIABLE, JOIN_TOKEN_FILE_VARIABLE, TOKEN_VARIABLE)
"""What whoever starts the sidecar may have, and its program does not get to see."""


def parse_arguments(arguments: Sequence[str], environ: Mapping[str, str]) -> SidecarSettings:
    """The settings that the command line asks for. Raises InvalidRequest.

    Prints help or a usage error and raises SystemExit (0 or 2), as argparse does.
    """
    options, command = _split(arguments)
    given = vars(argument_parser(environ).parse_args(options))
    health = {
        name.removeprefix("health_"): given.pop(name) for name in tuple(given) if name.startswith("health_")
    }
    return SidecarSettings(
        environ={name: value for name, value in environ.items() if name not in _SECRET_VARIABLES},
        join_token=_join_token(environ),
        capabilities=frozenset(given.pop("capability")),
        labels=dict(parse_label(text) for text in given.pop("label")),
        probes=dict(_probe(text) for text in given.pop("probe")),
        locality=Locality(given.pop("region"), given.pop("zone")),
        protocol=AgentProtocol(given.pop("protocol")),
        consumes=tuple(_consumption(text) for text in given.pop("consume")),
        subscribes=tuple(
            [EventIntake(topic) for topic in given.pop("subscribe")]
            + [EventIntake(topic, every_instance=True) for topic in given.pop("subscribe_each")]
        ),
        event_format=EventFormat(given.pop("event_format")),
        nats_servers=tuple(_list(given.pop("nats"))),
        xds_addresses=tuple(_address(text) for text in _list(given.pop("xds"))),
        api_addresses=tuple(_api_address(text) for text in _list(given.pop("api"))),
        command=command,
        health=HealthSettings(**health),
        **given,
    )


def argument_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The options of `python -m weft.sidecar`, whose defaults `environ` can change."""
    parser = argparse.ArgumentParser(
        prog="python -m weft.sidecar",
        usage="%(prog)s [options] [-- COMMAND ARGUMENT...]",
        description="An Envoy beside one agent, and the agent's program if a command is given.",
        epilog="All times are in seconds.",
        allow_abbrev=False,
    )
    _add_agent(parser)
    _add_work(parser)
    _add_addresses(parser, environ)
    _add_health(parser)
    _add_times(parser, environ)
    return parser


def _add_agent(parser: argparse.ArgumentParser) -> None:
    _add(parser, "type", help="what kind of agent it is; without it the program only calls others")
    _add(parser, "id", help="name of the instance (default: <type>-<five random characters>)")
    _add(parser, "incarnation", help="the same at every restart: the name is taken over without a wait")
    parser.add_argument("--capability", action="append", default=[], help="may be repeated")
    _add(parser, "version")
    parser.add_argument("--label", action="append", default=[], help="NAME=VALUE; may be repeated")
    _add(parser, "weight", type=int)
    parser.add_argument("--region", default="")
    parser.add_argument("--zone", default="")
    parser.add_argument(
        "--protocol",
        choices=[each.value for each in AgentProtocol],
        default=AgentProtocol.HTTP1.value,
        help="what the agent speaks; a2a and mcp (mcp-stdio: on its standard input and output) are HTTP/1.1",
    )
    _add(parser, "mcp_path", help="where an agent that speaks mcp takes requests (default: /mcp)")


def _add_work(parser: argparse.ArgumentParser) -> None:
    _list_of(parser, "--consume", "QUEUE[=CONCURRENCY] whose tasks the agent gets at POST /tasks")
    _list_of(parser, "--subscribe", "TOPIC, or pattern, whose events the agent gets at POST /events")
    _list_of(parser, "--subscribe-each", "the same, but every instance gets each event")
    parser.add_argument(
        "--event-format",
        choices=[each.value for each in EventFormat],
        default=EventFormat.BINARY.value,
        help="how events are posted: CloudEvents over HTTP (binary, structured), or {topic, event} (mesh)",
    )


def _list_of(parser: argparse.ArgumentParser, flag: str, explanation: str) -> None:
    parser.add_argument(flag, action="append", default=[], help=f"{explanation}; may be repeated")


def _add_addresses(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    _add(parser, "agent_port", "--port", type=int, help="the agent's own port (default: chosen, as PORT)")
    _add(parser, "bind_host", "--bind", help="IP address for calls from other sidecars")
    _add(parser, "advertise_host", "--advertise", help="host at which other sidecars reach this one")
    _add(parser, "inbound_port", type=int)
    _add(parser, "outbound_port", type=int)
    _add(parser, "metrics_host", help="IP address at which metrics are shown to whoever asks (127.0.0.1)")
    _add(
        parser,
        "metrics_port",
        type=_metrics_port,
        help="where metrics are shown; 0: any free port (default); none: they are not",
    )
    _list_of(parser, "--probe", "NAME=PATH of the agent, made for whoever asks for /agent/probes/NAME")
    _add(parser, "drain_socket", type=Path, help="Unix socket at which a pod's hook has the sidecar drain")
    _add(parser, "outside", type=_outside, help="HOST:PORT where a Gateway takes callers from outside")
    _add(parser, "identity_directory", "--identity-dir", type=Path, help="for the program's own connections")
    parser.add_argument(
        "--identity-group", action="store_true", help="let the sidecar's group read what is there, too"
    )
    nats = environ.get(NATS_VARIABLE) or DEFAULT_NATS
    xds = environ.get(XDS_VARIABLE) or str(DEFAULT_XDS)
    parser.add_argument("--nats", default=nats, help=f"URL,... (default: ${NATS_VARIABLE} or {DEFAULT_NATS})")
    parser.add_argument(
        "--xds", default=xds, help=f"HOST:PORT,... (default: ${XDS_VARIABLE} or {DEFAULT_XDS})"
    )
    api = environ.get(API_VARIABLE) or f"https://{DEFAULT_API}"
    parser.add_argument(
        "--api", default=api, help=f"URL,... (default: ${API_VARIABLE} or https://{DEFAULT_API})"
    )
    trust = environ.get(TRUST_BUNDLE_VARIABLE)
    parser.add_argument(
        "--trust-bundle",
        type=Path,
        default=Path(trust) if trust else None,
        help=f"the mesh's roots, PEM (default: ${TRUST_BUNDLE_VARIABLE})",
    )
    account = environ.get(SERVICE_ACCOUNT_VARIABLE)
    parser.add_argument(
        "--service-account-token",
        type=Path,
        default=Path(account) if account else None,
        help=f"in place of a join token, on Kubernetes (default: ${SERVICE_ACCOUNT_VARIABLE})",
    )
    _add(parser, "runtime_parent", "--runtime-dir", type=Path)
    _add(parser, "envoy_concurrency", type=int)
    _add(parser, "max_connections", type=int)
    _add(parser, "trace_sampling", type=float, help="percent of the calls that begin a trace (default: 1)")
    _add(parser, "log_level")


def _add_health(parser: argparse.ArgumentParser) -> None:
    _add(
        parser,
        "health_path",
        help="empty: a connection is enough (default: /health; a2a: the agent's card; mcp: a connection)",
    )
    _add(parser, "health_interval", type=float)
    _add(parser, "health_timeout", type=float)
    _add(parser, "health_healthy_threshold", "--healthy-threshold", type=int)
    _add(parser, "health_unhealthy_threshold", "--unhealthy-threshold", type=int)


def _add_times(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument(
        "--trust-refresh",
        type=float,
        default=environ.get(TRUST_REFRESH_VARIABLE) or argparse.SUPPRESS,
        help=f"how often to ask what is to be trusted (default: ${TRUST_REFRESH_VARIABLE}, or every 30 s)",
    )
    for name in (
        "lease_ttl",
        "renew_interval",
        "drain_grace",
        "drain_timeout",
        "stop_timeout",
        "start_timeout",
    ):
        _add(parser, name, type=float)


def _add(parser: argparse.ArgumentParser, name: str, flag: str = "", **options: Any) -> None:
    """An option for the setting `name`, left to the setting's own default where it is not given."""
    flag = flag or "--" + name.replace("_", "-")
    parser.add_argument(flag, dest=name, default=argparse.SUPPRESS, **options)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_label(text: str) -> tuple[str, str]:
    """The name and the value in `NAME=VALUE`. Raises InvalidRequest."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise InvalidRequest(f"label {text!r} is not NAME=VALUE")
    return name, value


def _probe(text: str) -> tuple[str, str]:
    name, separator, path = text.partition("=")
    if not separator:
        raise InvalidRequest(f"probe {text!r} is not NAME=PATH")
    return name, path


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise InvalidRequest(f"control plane address: {error}") from error


def _consumption(text: str) -> Consumption:
    queue, separator, concurrency = text.partition("=")
    if separator and not concurrency.isdecimal():
        raise InvalidRequest(f"{text!r} is not QUEUE or QUEUE=CONCURRENCY")
    return Consumption(queue, int(concurrency) if separator else None)


def _metrics_port(text: str) -> int | None:
    try:
        port = None if text == "none" else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a port nor none") from error
    return None if port is None or port < 0 else port


def _outside(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _api_address(url: str) -> Address:
    if not url.startswith("https://"):
        raise InvalidRequest(
            f"the control plane's API is at an address like https://127.0.0.1:7400, not {url!r}"
        )
    return _address(url.removeprefix("https://").rstrip("/"))


def _join_token(environ: Mapping[str, str]) -> str:
    file = environ.get(JOIN_TOKEN_FILE_VARIABLE)
    if not file:
        return environ.get(JOIN_TOKEN_VARIABLE, "").strip()
    try:
        with Path(file).open(encoding="ascii") as token:
            return token.read(_MAX_TOKEN_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the join token cannot be read from {file}: {error}") from error


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    """The sidecar's own options, and the command after `--`, which may have options of its own."""
    if "--" not in arguments:
        return arguments, ()
    end = list(arguments).index("--")
    return arguments[:end], tuple(arguments[end + 1 :])
