"""What a control plane process can be told: by flags, or by `WEFT_CONTROL_*` in the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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

    nats: list[str] = Field(default=["nats://127.0.0.1:7402"], min_length=1)
    """NATS servers, as `nats://host:port`: where everything is kept."""

    host: str = "127.0.0.1"
    """Address to listen at, for API and xDS. Loopback unless told otherwise."""

    api_port: int = Field(default=7400, ge=1, le=65535)
    """Port of the API and the metrics (HTTP)."""

    xds_port: int = Field(default=7401, ge=1, le=65535)
    """Port of the xDS server (gRPC), to which sidecars connect."""

    advertise_api: str | None = None
    """`host:port` at which sidecars reach the API, which is what `http://control.mesh` leads to;
    by default `host` and `api_port`."""

    lease_ttl: float = Field(default=10.0, ge=1.0, le=300.0)
    """Seconds after which an instance that was not renewed is taken for dead. The same for all sidecars."""

    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """How much to log."""
