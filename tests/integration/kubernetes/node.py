"""A node on this machine: it runs the containers of pods as processes, by what stands in the pods alone.

Volumes are directories, filled from the API server's Secrets, ConfigMaps and tokens and kept up to date;
host names of Services and ports are others, since there is one machine and no DNS for them.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.kubernetes_documents import Document
from tests.kubernetes_server import KubernetesServer

from weft.aio.poll import until
from weft.kubernetes.sidecar_container import expanded

LIMIT = 200.0
_RUNNER = Path(__file__).with_name("container_process.py")


def pods_of(documents: Sequence[Document]) -> dict[str, Document]:
    """One pod of each workload, as the cluster's controllers would make it, by its name."""
    made = {}
    for each in documents:
        if "template" not in each.get("spec", {}):
            continue
        template, name = each["spec"]["template"], each["metadata"]["name"]
        claims = [claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])]
        volumes = [*template["spec"]["volumes"], *({"name": claim, "emptyDir": {}} for claim in claims)]
        metadata = {**template["metadata"], "name": name, "namespace": each["metadata"]["namespace"]}
        spec = {**template["spec"], "volumes": volumes}
        made[name] = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return made


@dataclass(frozen=True)
class _Place:
    """Where the processes of a container run."""

    runner: tuple[str, ...]
    environ: dict[str, str]
    directory: Path


class Node:
    """Runs pods; all of them end with `stop`."""

    def __init__(
        self, server: KubernetesServer, api: httpx.AsyncClient, directory: Path, elsewhere: Mapping[str, str]
    ) -> None:
        """`elsewhere`: what stands in pods, by what is meant here: names of hosts, ports."""
        self._server = server
        self._api = api
        self._directory = directory
        self._elsewhere = elsewhere
        self._there = re.compile("|".join(rf"(?<![0-9]){re.escape(each)}(?![0-9])" for each in elsewhere))
        self.running: dict[str, Process] = {}
        self._places: dict[str, _Place] = {}
        self._maps: list[tuple[str, Path]] = []

    async def start(self, pod: Document, ip: str) -> None:
        """Create the pod, mount its volumes as soon as they can be, and start its containers."""
        metadata, spec = pod["metadata"], pod["spec"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods"
        await self._api.delete(f"{path}/{metadata['name']}", params={"gracePeriodSeconds": 0})
        created = (await self._api.post(path, json=pod)).raise_for_status().json()
        own = self._directory / metadata["name"]
        mounts = {each["name"]: own / each["name"] for each in spec["volumes"]}
        for volume in spec["volumes"]:
            mounts[volume["name"]].mkdir(parents=True)
            await self._mount(volume, mounts[volume["name"]], created)
        credentials = own / "credentials"
        if spec["automountServiceAccountToken"]:
            await self._credentials(credentials, created)
        for container in spec["containers"]:
            self.running[container["name"]] = await self._run(container, mounts, credentials, created, ip)

    async def stop(self) -> None:
        """SIGTERM to all, the last one first, and wait for their ends."""
        for process in reversed(self.running.values()):
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def succeeds(self, container: str) -> None:
        """Wait until a container has ended well."""
        async with asyncio.timeout(LIMIT):
            code = await self.running[container].wait()
        assert code == 0, self.log(container)

    async def passes(self, pod: Document, ip: str, *, probe: str = "readinessProbe") -> None:
        """Wait until all containers of a pod pass a probe."""
        for container in pod["spec"]["containers"]:
            asked = container[probe]["httpGet"]
            url = f"{asked['scheme'].lower()}://{ip}:{self.meant(str(asked['port']))}{asked['path']}"

            async def passed(url: str = url, name: str = container["name"]) -> bool:
                assert self.running[name].returncode is None, self._ended()
                await self.refresh()
                return await _answers(url)

            try:
                async with asyncio.timeout(LIMIT):
                    await until(passed)
            except TimeoutError:
                logs = f"{self._ended()}\n{self.log(container['name'])}"
                raise AssertionError(f"{url} never answered\n{logs}") from None

    async def refresh(self) -> None:
        """Bring ConfigMaps into the volumes, as kubelets do it now and then."""
        for path, directory in self._maps:
            answer = await self._api.get(path)
            for key, value in (answer.json().get("data") or {}).items():
                file = directory / key
                if not file.exists() or file.read_text() != value:
                    draft = file.with_suffix(".new")
                    draft.write_text(value)
                    draft.replace(file)

    def _ended(self) -> str:
        """What all containers wrote that have ended badly."""
        ended = [name for name, process in self.running.items() if process.returncode]
        return "\n".join(
            f"{name} ended with {self.running[name].returncode}\n{self.log(name)}" for name in ended
        )

    def log(self, container: str) -> str:
        """What a container wrote."""
        return (self._directory / f"{container}.log").read_text(errors="replace")[-20_000:]

    def meant(self, text: str) -> str:
        """`text` of a manifest with hosts and ports as they are here."""
        return self._there.sub(lambda match: self._elsewhere[match[0]], text)

    async def _mount(self, volume: Document, directory: Path, pod: Document) -> None:
        namespace = pod["metadata"]["namespace"]
        if "secret" in volume:
            path = f"/api/v1/namespaces/{namespace}/secrets/{volume['secret']['secretName']}"
            data = (await self._api.get(path)).raise_for_status().json()["data"]
            for each in volume["secret"]["items"]:
                (directory / each["path"]).write_bytes(base64.b64decode(data[each["key"]]))
        sources = volume.get("projected", {}).get("sources", [volume])
        for each in sources:
            if "configMap" in each:
                await self._map(each["configMap"], directory, namespace)
            if "serviceAccountToken" in each:
                token = await self._token(pod, each["serviceAccountToken"]["audience"])
                (directory / each["serviceAccountToken"]["path"]).write_text(token)

    async def _map(self, source: Document, directory: Path, namespace: str) -> None:
        """Waits for the keys that are wanted, unless they are optional: as a kubelet does."""
        self._maps.append((f"/api/v1/namespaces/{namespace}/configmaps/{source['name']}", directory))

        async def there() -> bool:
            await self.refresh()
            return all((directory / each["path"]).exists() for each in source["items"])

        if not source.get("optional"):
            async with asyncio.timeout(LIMIT):
                await until(there)

    async def _credentials(self, directory: Path, pod: Document) -> None:
        directory.mkdir()  # noqa: ASYNC240 -- as everything here
        (directory / "token").write_text(await self._token(pod, ""))
        (directory / "namespace").write_text(pod["metadata"]["namespace"])
        (directory / "ca.crt").write_text(self._server.roots())

    async def _token(self, pod: Document, audience: str) -> str:
        metadata = pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {"boundObjectRef": bound, **({"audiences": [audience]} if audience else {})}
        account = pod["spec"]["serviceAccountName"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        made = (await self._api.post(path, json={"spec": spec})).raise_for_status().json()
        return str(made["status"]["token"])

    async def execute(self, container: str, *command: str, given: bytes = b"") -> tuple[int, bytes]:
        """What `kubectl exec -i` would: run a command in a container; its exit code and standard output."""
        place = self._places[container]
        process = await asyncio.create_subprocess_exec(
            *(*place.runner, *command),
            env=place.environ,
            cwd=place.directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate(given)
        assert process.returncode is not None
        return process.returncode, output

    async def _run(
        self, container: Document, mounts: Mapping[str, Path], credentials: Path, pod: Document, ip: str
    ) -> Process:
        places = {each["mountPath"]: str(mounts[each["name"]]) for each in container["volumeMounts"]}
        places.pop("/tmp", None)

        def here(text: str) -> str:
            text = self.meant(text)
            for there, place in places.items():
                text = text.replace(there, place)
            return text

        directory = mounts.get("tmp", self._directory)
        environ = dict(_surroundings(self._server, directory))
        environ |= await self._environment(container, pod, ip, here)
        runner = (sys.executable, "-P", str(_RUNNER), str(credentials))
        self._places[container["name"]] = _Place(runner, environ, directory)
        raw = (*container["command"], *container.get("args", []))
        log = self._directory / f"{container['name']}.log"
        with log.open("ab") as written:
            return await asyncio.create_subprocess_exec(
                *(*runner, *(expanded(here(each), environ) for each in raw)),
                env=environ,
                cwd=directory,
                stdout=written,
                stderr=written,
            )

    async def _environment(
        self, container: Document, pod: Document, ip: str, here: Callable[[str], str]
    ) -> dict[str, str]:
        metadata = pod["metadata"]
        fields = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "status.podIP": ip,
        }
        found: dict[str, str] = {}
        for each in container.get("env", []):
            source = each.get("valueFrom", {})
            if "fieldRef" in source:
                found[each["name"]] = fields[source["fieldRef"]["fieldPath"]]
            elif "secretKeyRef" in source:
                found[each["name"]] = await self._secret(pod, **source["secretKeyRef"])
            else:
                found[each["name"]] = expanded(here(each["value"]), found)
        return found

    async def _secret(self, pod: Document, name: str, key: str) -> str:
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/secrets/{name}"
        data = (await self._api.get(path)).raise_for_status().json()["data"]
        return base64.b64decode(data[key]).decode()


def _surroundings(server: KubernetesServer, tmp: Path) -> Iterator[tuple[str, str]]:
    """What every container has."""
    yield "PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    yield "HOME", str(tmp)
    yield "TMPDIR", str(tmp)
    host, _, port = server.url.removeprefix("https://").partition(":")
    yield "KUBERNETES_SERVICE_HOST", host
    yield "KUBERNETES_SERVICE_PORT", port


async def _answers(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=30.0) as http:
        try:
            return (await http.get(url)).status_code == 200
        except httpx.TransportError:
            return False
