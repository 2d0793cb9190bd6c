"""Kubeconfigs: which cluster, and as whom."""

from __future__ import annotations

import base64
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.pki import Pki

from weft.errors import InvalidRequest
from weft.kubernetes.kubeconfig import MAX_BYTES, cluster_access, kubeconfig_file

ROOTS = Pki()


def config(
    *,
    cluster: dict[str, Any] | None = None,
    user: dict[str, Any] | None = None,
    current: str = "one",
    **more: Any,
) -> str:
    server = {"server": "https://10.0.0.1:6443/", "certificate-authority-data": encoded(ROOTS.bundle().pem)}
    return json.dumps(
        {
            "clusters": [{"name": "c", "cluster": server if cluster is None else cluster}],
            "users": [{"name": "u", "user": {"token": "of-u"} if user is None else user}],
            "contexts": [
                {"name": "one", "context": {"cluster": "c", "user": "u"}},
                {"name": "anonymous", "context": {"cluster": "c"}},
            ],
            "current-context": current,
            **more,
        }
    )


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def written(directory: Path, text: str) -> Path:
    file = directory / "config"
    file.write_text(text)
    return file


def test_the_current_context_is_meant_unless_another_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, config())
    access = cluster_access(file)
    assert (access.url, access.token()) == ("https://10.0.0.1:6443", "of-u")
    assert access.trust.verify_mode is ssl.CERT_REQUIRED
    assert len(access.trust.get_ca_certs()) == 1
    assert cluster_access(file, "anonymous").token() == ""


def test_one_as_kubectl_writes_it_is_read(tmp_path: Path) -> None:
    text = """
apiVersion: v1
kind: Config
preferences: {}
current-context: kind-weft
clusters:
- cluster:
    server: https://127.0.0.1:41234
    insecure-skip-tls-verify: true
  name: kind-weft
contexts:
- context:
    cluster: kind-weft
    user: kind-weft
  name: kind-weft
users:
- name: kind-weft
  user: {}
"""
    access = cluster_access(written(tmp_path, text))
    assert (access.url, access.token()) == ("https://127.0.0.1:41234", "")
    assert access.trust.verify_mode is ssl.CERT_NONE


def test_files_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(ROOTS.bundle().pem)
    (tmp_path / "token").write_text("first\n")
    cluster = {"server": "https://c", "certificate-authority": "ca.pem"}
    access = cluster_access(written(tmp_path, config(cluster=cluster, user={"tokenFile": "token"})))
    assert access.token() == "first"
    (tmp_path / "token").write_text("second\n")
    assert access.token() == "second", "it is replaced under way"


def test_a_certificate_says_who_it_is(tmp_path: Path) -> None:
    chain, key = ROOTS.svid("")
    user = {"client-certificate-data": encoded(chain), "client-key-data": encoded(key)}
    access = cluster_access(written(tmp_path, config(user=user)))
    assert access.token() == ""
    user["client-key-data"] = encoded(Pki().svid("")[1])
    with pytest.raises(InvalidRequest, match="cannot be read"):
        cluster_access(written(tmp_path, config(user=user)))


PROGRAM = """
import json, os, sys
told = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert told["spec"] == {"interactive": False}
if os.environ["WANTED"] == "nothing":
    sys.exit("no: secret-of-the-program")
print(json.dumps({"apiVersion": told["apiVersion"], "status": {"token": os.environ["WANTED"]}}))
"""


def executing(directory: Path, wanted: str, **more: Any) -> Path:
    (directory / "program.py").write_text(PROGRAM)
    program = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(directory / "program.py")],
        "env": [{"name": "WANTED", "value": wanted}],
        **more,
    }
    return written(directory, config(user={"exec": program}))


def test_a_program_tells_the_token(tmp_path: Path) -> None:
    assert cluster_access(executing(tmp_path, "of-the-cloud")).token() == "of-the-cloud"


@pytest.mark.parametrize(
    ("wanted", "more", "told"),
    [
        ("nothing", {}, "tells none .CalledProcessError.: run `kubectl version`"),
        ("x", {"command": "/nowhere/at-all"}, "tells none .FileNotFoundError."),
        ("x", {"env": [{"name": "WANTED"}]}, "tells none .KeyError."),
        ("x", {"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "it must be"),
    ],
)
def test_a_program_that_tells_none_is_named_without_what_it_said(
    wanted: str, more: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=told) as raised:
        cluster_access(executing(tmp_path, wanted, **more)).token()
    assert "secret-of-the-program" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not one YAML document"),
        ("a: 1\n---\nb: 2\n", "is not one YAML document"),
        ("[", "is not one YAML document"),
        ("- a", "is not a mapping"),
        ("a: &b 1", "is not a mapping of plain values"),
        ("{}", "has no current-context"),
        (config(clusters=[]), "nothing called 'c' in clusters"),
        (config(clusters=[1]), "nothing called 'c' in clusters"),
        (config(clusters={"c": 1}), "nothing called 'c' in clusters"),
        (config(users=[]), "nothing called 'u' in users"),
        (config(current="two"), "nothing called 'two' in contexts"),
        (config(cluster={}), "has no server"),
        (config(cluster={"server": "ftp://c"}), "has no server"),
        (config(cluster={"server": "https://c", "proxy-url": "http://p"}), "proxy-url .* `kubectl proxy`"),
        (config(user={"username": "a", "password": "b"}), "username .* `kubectl proxy`"),
        (
            config(cluster={"server": "https://c", "certificate-authority": "none"}),
            "certificate-authority in",
        ),
        (
            config(cluster={"server": "https://c", "certificate-authority-data": "%"}),
            "certificate-authority in",
        ),
        (config(cluster={"server": "https://c", "certificate-authority-data": "YQ=="}), "cannot be read"),
        ("#" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=told):
        cluster_access(written(tmp_path, text))


def test_where_it_is() -> None:
    assert kubeconfig_file({"KUBECONFIG": "/a/b"}) == Path("/a/b")
    assert kubeconfig_file({}) == Path.home() / ".kube" / "config"
    with pytest.raises(InvalidRequest, match="names 2 files"):
        kubeconfig_file({"KUBECONFIG": "/a:/b"})
    with pytest.raises(InvalidRequest, match="/nowhere/config cannot be read"):
        cluster_access(Path("/nowhere/config"))
