"""Which cluster a person means, and as whom: a kubeconfig, as kubectl has it, as far as it is needed to ask.

Fields: clusters[].cluster.{server, certificate-authority(-data), insecure-skip-tls-verify};
users[].user.{token, tokenFile, client-certificate(-data), client-key(-data), exec}; contexts[];
current-context. What else there is and would make a difference (a proxy, another TLS name, impersonation,
passwords) is refused, and not passed over.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from weft.aio.private_file import write_private
from weft.errors import InvalidRequest
from weft.model.yaml_tree import NotYaml, trees

VARIABLE: Final = "KUBECONFIG"
"""Environment variable: where the file is, in place of `~/.kube/config`."""

MAX_BYTES: Final = 1024 * 1024
EXEC_TIMEOUT: Final = 30.0
"""Seconds that a program may take that is asked for a token."""

_EXEC_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_UNHEEDED: Final = ("proxy-url", "tls-server-name", "as", "as-groups", "username", "auth-provider")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """Where a cluster's API is, and as whom to come there."""

    url: str
    trust: ssl.SSLContext
    token: Callable[[], str]
    """Empty where a certificate says who it is, or nobody has to."""


def kubeconfig_file(environ: Mapping[str, str]) -> Path:
    """Where the kubeconfig is. Raises InvalidRequest where there are several."""
    named = [each for each in environ.get(VARIABLE, "").split(os.pathsep) if each]
    if len(named) > 1:
        raise InvalidRequest(
            f"{VARIABLE} names {len(named)} files: name one, such as `kubectl config view --flatten` writes"
        )
    return Path(named[0]) if named else Path.home() / ".kube" / "config"


def cluster_access(file: Path, context: str = "") -> ClusterAccess:
    """What `file` says of a context, or of its current one. Raises InvalidRequest."""
    config = _read(file)
    name = context or str(config.get("current-context") or "")
    if not name:
        raise InvalidRequest(f"{file} has no current-context: name one")
    chosen = _named(config, "contexts", name, file)
    cluster = _named(config, "clusters", str(chosen.get("cluster")), file)
    user = _named(config, "users", str(chosen["user"]), file) if chosen.get("user") else {}
    for field in _UNHEEDED:
        if cluster.get(field) or user.get(field):
            raise InvalidRequest(
                f"{field} in {file} is not supported here: run `kubectl proxy`, and name that by --server"
            )
    server = cluster.get("server")
    if not isinstance(server, str) or not server.startswith(("https://", "http://")):
        raise InvalidRequest(f"cluster {chosen.get('cluster')!r} in {file} has no server")
    return ClusterAccess(server.rstrip("/"), _trust(cluster, user, file), _token(user, file))


def _read(file: Path) -> Document:
    try:
        with file.open("rb") as source:
            text = source.read(MAX_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"the kubeconfig {file} cannot be read ({error}): name it by {VARIABLE}"
        ) from error
    if len(text) > MAX_BYTES:
        raise InvalidRequest(f"the kubeconfig {file} is larger than {MAX_BYTES} bytes")
    try:
        [tree] = trees(text)
    except (NotYaml, ValueError) as error:
        raise InvalidRequest(f"the kubeconfig {file} is not one YAML document") from error
    if not isinstance(tree.value, dict) or tree.problems:
        raise InvalidRequest(f"the kubeconfig {file} is not a mapping of plain values")
    return tree.value


def _named(config: Document, field: str, name: str, file: Path) -> Document:
    """The one of a list that has that name, without the name."""
    listed = config.get(field)
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, dict) and str(each.get("name")) == name:
            found = each.get(field.removesuffix("s"))
            return found if isinstance(found, dict) else {}
    raise InvalidRequest(f"{file} has nothing called {name!r} in {field}")


def _trust(cluster: Document, user: Document, file: Path) -> ssl.SSLContext:
    roots = _content(cluster, "certificate-authority", file)
    try:
        trust = ssl.create_default_context(cadata=roots.decode("ascii") if roots else None)
        if cluster.get("insecure-skip-tls-verify") is True:
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        certificate = _content(user, "client-certificate", file)
        if certificate:
            _load(trust, certificate, _content(user, "client-key", file))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"a certificate or key in {file} cannot be read ({error})") from error
    return trust


def _load(trust: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL reads certificates and keys from files only."""
    with TemporaryDirectory() as directory:
        pem = Path(directory) / "client.pem"
        write_private(pem, certificate + b"\n" + key)
        trust.load_cert_chain(pem)


def _content(holder: Document, field: str, file: Path) -> bytes:
    """What is in `FIELD-data`, or in the file that `FIELD` names; empty where neither is given."""
    data, named = holder.get(f"{field}-data"), holder.get(field)
    try:
        if data:
            return base64.b64decode(str(data), validate=True)
        return _beside(file, str(named)).read_bytes()[:MAX_BYTES] if named else b""
    except (binascii.Error, OSError) as error:
        raise InvalidRequest(f"{field} in {file} cannot be read ({error})") from error


def _beside(file: Path, named: str) -> Path:
    return file.parent / named


def _token(user: Document, file: Path) -> Callable[[], str]:
    token, named, program = user.get("token"), user.get("tokenFile"), user.get("exec")
    if named:
        return lambda: _content({"tokenFile": named}, "tokenFile", file).decode(errors="replace").strip()
    if token:
        return lambda: str(token)
    if isinstance(program, dict):
        return cache(lambda: _asked(program, file))
    return lambda: ""


def _asked(program: Document, file: Path) -> str:
    """The token that a program tells, as cloud providers have them (client-go's credential plugins)."""
    version = program.get("apiVersion")
    if version not in _EXEC_VERSIONS:
        raise InvalidRequest(f"exec in {file} speaks {version}: it must be {' or '.join(_EXEC_VERSIONS)}")
    told = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    command = str(program.get("command"))
    if "/" in command:
        command = str(_beside(file, command))
    try:
        given = {str(each["name"]): str(each["value"]) for each in program.get("env") or []}
        done = subprocess.run(
            [command, *map(str, program.get("args") or [])],
            env={**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(told)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=EXEC_TIMEOUT,
            check=True,
        )
        token = json.loads(done.stdout[:MAX_BYTES])["status"]["token"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        # No output: there may be a token in it.
        raise InvalidRequest(
            f"{command!r}, which {file} has asked for a token, tells none ({type(error).__name__}): run "
            f"`kubectl version` to see why"
        ) from error
    return str(token)
