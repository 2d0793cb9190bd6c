"""An installation of Weft on a cluster, as documents: NATS, control plane, controller and so on. Pure."""

from weft.kubernetes.installation.assembly import installation

__all__ = ["installation"]
