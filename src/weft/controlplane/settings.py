"""What a control plane process can be told: by flags, or by `WEFT_CONTROL_*` in the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from weft.model.hops import MAX_HOPS
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN


class ControlPlaneSettings(BaseSettings):
    """Settings of one control plane replica. Flags win over the environment."""

    model_config = SettingsConfigDict(
        env_prefix="WEFT_CONTROL_",
        frozen=True,
        extra="forbid",
        cli_prog_name="weft control",
        cli_kebab_case=True,
        cli_hide_none_type=True,
    )

    nats: list[str] = Field(default=["tls://127.0.0.1:7402"], min_length=1)
    """NATS servers, as `tls://host:port`: where everything is kept. `nats://`, without TLS, on this machine
    only."""

    nats_roots_file: Path | None = None
    """File with the authorities of NATS's own certificate (PEM). Needed for `tls://`."""

    nats_credentials_file: Path | None = None
    """File with the certificate and key by which NATS believes this control plane (PEM). Needed for `tls://`."""

    nats_seed_file: Path | None = None
    """File with the nkey seed of the control plane's NATS user."""

    nats_issuer_file: Path | None = None
    """File with the nkey seed of the account that NATS's auth callout trusts: with it this control plane
    decides what every client of NATS may do."""

    nats_replicas: int = Field(default=1, ge=1, le=5)
    """How many of these servers keep each thing that is kept: with three of three any one may be lost.
    What fewer keep is copied to more at the next start. That fewer are to keep it is not followed."""

    host: str = "127.0.0.1"
    """Address to listen at, for API and xDS. Loopback unless told otherwise."""

    api_port: int = Field(default=7400, ge=1, le=65535)
    """Port of the API and the metrics (HTTPS)."""

    xds_port: int = Field(default=7401, ge=1, le=65535)
    """Port of the xDS server (gRPC), to which sidecars connect."""

    dashboard_host: str = "127.0.0.1"
    """Address at which the dashboard is served without TLS, for browsers on this machine, which do not know
    the mesh's roots. Loopback unless told otherwise: tokens travel there in plain text."""

    dashboard_port: int = Field(default=7404, ge=0, le=65535)
    """Port of it (HTTP); 0: it is not served, but for `/dashboard` of the API."""

    metrics_host: str = "127.0.0.1"
    """Address at which `/metrics` is served without TLS and without a token, for Prometheus. Loopback unless
    told otherwise: whoever reaches it can read the metrics."""

    metrics_port: int = Field(default=7405, ge=0, le=65535)
    """Port of it (HTTP); 0: it is not served, but for `/metrics` of the API."""

    advertise_metrics: str | None = None
    """`host:port` at which Prometheus reaches that; by default `metrics_host` and `metrics_port`."""

    advertise_api: str | None = None
    """`host:port` at which sidecars reach the API, which is what `http://control.mesh` leads to;
    by default `host` and `api_port`."""

    advertise_xds: str | None = None
    """`host:port` at which sidecars reach the xDS server of this replica alone: while it is the one that
    schedules calls to models, all of them ask there; by default `host` and `xds_port`."""

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    """The name of the mesh in SPIFFE IDs. Fixed once identities were given out."""

    sealing_key: str = ""
    """Where the key is that seals the authority's private keys and Secrets in NATS: `file:/path`, `env:NAME`
    or `exec:/path/to/program`; 32 random bytes in base64."""

    svid_lifetime: float = Field(default=3600.0, ge=2.0, le=7 * 24 * 3600.0)
    """Seconds for which an identity's certificate is valid; it is renewed at half of that."""

    trust_propagation: float = Field(default=120.0, ge=0.1, le=24 * 3600.0)
    """Seconds within which all have heard of a new root, which signs only after that. Sidecars ask every
    `--trust-refresh`."""

    replica: str = "control"
    """The name of this replica in its own identity; a DNS label."""

    names: list[str] = []
    """Further host names and addresses by which clients call the API, for its certificate."""

    operator: str = "local"
    """The name of the operator who has the token in `operator_token_file`."""

    operator_token_file: Path | None = None
    """File with an admin token to begin with; any other is made with it."""

    bundle_file: Path | None = None
    """File to keep up to date with the mesh's roots (PEM), for other processes on this machine."""

    service_account_issuer: str = ""
    """The issuer of a Kubernetes cluster's service account tokens, by which its pods may prove themselves."""

    service_account_keys_file: Path | None = None
    """File with the public keys of that issuer (JWKS)."""

    service_account_review: bool = False
    """In a pod, in place of both: ask the cluster's own API about every such token (TokenReview). It also
    knows which pods are gone."""

    service_account_namespaces: list[str] = []
    """Namespaces whose pods are believed; empty: those of all. Whoever has an identity keeps it: it is taken
    back by `weft identity revoke`."""

    max_hops: int = Field(default=MAX_HOPS, ge=1, le=256)
    """Agents that a call tree may pass: a call that would pass one more is answered with 508."""

    lease_ttl: float = Field(default=10.0, ge=1.0, le=300.0)
    """Seconds after which an instance that was not renewed is taken for dead. The same for all sidecars."""

    lead_ttl: float = Field(default=3.0, ge=1.0, le=300.0)
    """Seconds after which another replica schedules calls to models if the one that does is not heard of.
    More where machines stall: for so long calls that have to be scheduled fail when that replica dies. The
    same for all replicas."""

    trace_memory: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024, le=64 * 1024**3)
    """Bytes of spans that this replica keeps, about 700 each; beyond them the oldest traces go."""

    trace_age: float = Field(default=3600.0, ge=1.0, le=30 * 24 * 3600.0)
    """Seconds for which a trace is kept."""

    otlp_endpoint: str = ""
    """Where spans and metrics are sent on: a collector, Jaeger, Tempo. `http://host:port` or `https://` for
    OTLP/HTTP, `grpc://` or `grpcs://` for OTLP/gRPC. Empty: nowhere."""

    otlp_headers_file: Path | None = None
    """File with headers to send along, each a line `name: value`: credentials of the collector."""

    otlp_roots_file: Path | None = None
    """File with the authorities of the collector's certificate (PEM); by default the system's."""

    otlp_metrics_interval: float = Field(default=30.0, ge=0.0, le=3600.0)
    """Seconds between two times that metrics are sent on; 0: only spans are."""

    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """How much to log."""
