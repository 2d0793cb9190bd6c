"""`weft identity`: who is who in the mesh, and who vouches for it."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from weft.cli.api import control_api
from weft.cli.exit_codes import ExitCode
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import age, print_json, print_table
from weft.errors import InvalidRequest, NotFound
from weft.identity.bundle import TrustBundles, parse_bundle
from weft.identity.svid import InvalidSvid, parse_svid, verify_svid
from weft.model.spiffe import parse_spiffe_id

app = App(name="identity", help="Show, verify, rotate and revoke identities.")

MAX_FILE_BYTES = 1024 * 1024

_HERE = ControlPlane()


class Level(StrEnum):
    """What is replaced."""

    INTERMEDIATE = "intermediate"
    ROOT = "root"


@app.command
async def show(
    spiffe_id: Annotated[str | None, Parameter(help="Only this one.", show_default=False)] = None,
    /,
    *,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Show the authority, and every identity that is held: until when, and who vouched for it."""
    async with control_api(where) as api:
        authority, identities = await api.authority(), await api.identities()
    if spiffe_id is not None:
        identities = [each for each in identities if each["spiffeId"] == spiffe_id]
        if not identities:
            raise NotFound(f"nobody holds {spiffe_id} now; `weft identity show` lists who does")
    if output is Output.JSON:
        print_json({"authority": authority, "identities": identities})
        return
    if spiffe_id is None:
        _print_authority(authority)
    rows = (
        (
            each["spiffeId"],
            "revoked" if each["revoked"] else _left(each["expiresAt"]),
            each["attestedBy"],
            ",".join(f"{name}={value}" for name, value in sorted(each["labels"].items())),
        )
        for each in identities
    )
    print_table(("SPIFFE ID", "EXPIRES", "ATTESTED BY", "LABELS"), rows, none="nobody holds an identity")


@app.command
async def verify(
    file: Annotated[Path, Parameter(help="A certificate chain (PEM), the leaf first.")],
    /,
    *,
    bundle: Annotated[
        Path | None, Parameter(help="Roots to believe (PEM; default: the mesh's).", show_default=False)
    ] = None,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> ExitCode:
    """Say whether a certificate is a valid X509-SVID, whose, and if not, why. Exit code 1 if it is not."""
    pem = _read(file)
    try:
        svid = parse_svid(pem)
        bundles = await _bundles(bundle, svid.id.trust_domain, where)
        verify_svid(svid, bundles, now=time.time())
    except InvalidSvid as error:
        result: dict[str, Any] = {"valid": False, "reason": error.reason.value, "detail": error.detail}
    else:
        result = {"valid": True, "spiffeId": str(svid.id), "expiresAt": svid.not_after, "serial": svid.serial}
    if output is Output.JSON:
        print_json(result)
    elif result["valid"]:
        print(f"valid: {result['spiffeId']}, expires {_left(result['expiresAt'])}, serial {result['serial']}")
    else:
        print(f"not valid: {result['detail']}")
    return ExitCode.OK if result["valid"] else ExitCode.FAILED


@app.command
async def rotate(
    *,
    level: Annotated[Level, Parameter(help="Which of the authority's two levels is replaced.")] = (
        Level.INTERMEDIATE
    ),
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Replace the authority's intermediate now, or begin to replace its root. No call fails for it."""
    async with control_api(where) as api:
        authority = await api.rotate(level.value)
    if output is Output.JSON:
        print_json(authority)
    else:
        _print_authority(authority)


@app.command
async def revoke(
    spiffe_id: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why, for the audit.", show_default=False)] = "",
    where: ControlPlane = _HERE,
) -> None:
    """Take an identity back: its calls are denied from now on, and it is not renewed."""
    async with control_api(where) as api:
        await api.revoke(str(parse_spiffe_id(spiffe_id)), reason)
    print(f"{spiffe_id} revoked")


@app.command
async def restore(spiffe_id: str, /, *, where: ControlPlane = _HERE) -> None:
    """Undo a revocation."""
    async with control_api(where) as api:
        await api.restore(str(parse_spiffe_id(spiffe_id)))
    print(f"{spiffe_id} restored")


@app.command
async def bundle(
    *,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Print the roots of the mesh's trust domain (PEM); as JSON, those of federated ones too."""
    async with control_api(where) as api:
        bundles = await api.trust_bundles()
    print(bundles.to_json() if output is Output.JSON else bundles.own.pem.decode(), end="")


@app.command
async def federate(
    trust_domain: str,
    file: Annotated[Path, Parameter(help="Its roots (PEM).")],
    /,
    *,
    where: ControlPlane = _HERE,
) -> None:
    """Let callers of another trust domain in, as far as AccessPolicies allow them."""
    pem = _read(file)
    parse_bundle(trust_domain, pem)  # better said here, with the file at hand
    async with control_api(where) as api:
        await api.federate(trust_domain, pem.decode())
    print(f"{trust_domain} federated")


@app.command
async def unfederate(trust_domain: str, /, *, where: ControlPlane = _HERE) -> None:
    """Believe nobody of another trust domain any more."""
    async with control_api(where) as api:
        await api.unfederate(trust_domain)
    print(f"{trust_domain} unfederated")


async def _bundles(file: Path | None, trust_domain: str, where: ControlPlane) -> TrustBundles:
    if file is not None:
        return TrustBundles(parse_bundle(trust_domain, _read(file)))
    async with control_api(where) as api:
        return await api.trust_bundles()


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            content = source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise InvalidRequest(f"{file} is larger than {MAX_FILE_BYTES} bytes")
    return content


def _print_authority(authority: dict[str, Any]) -> None:
    print(f"trust domain  {authority['trustDomain']}")
    print(f"root          {authority['root'][:16]}…  expires {_left(authority['rootExpiresAt'])}")
    if authority["nextRoot"]:
        takes_over = _left(authority["nextRootTakesOverAt"])
        print(f"next root     {authority['nextRoot'][:16]}…  takes over {takes_over}")
    if authority["previousRoots"]:
        print(f"previous      {authority['previousRoots']} still trusted")
    print(f"intermediate  {authority['issuing'][:16]}…  expires {_left(authority['issuingExpiresAt'])}")
    if authority["federated"]:
        print(f"federated     {', '.join(authority['federated'])}")
    print()


def _left(moment: float) -> str:
    now = time.time()
    return f"in {age(2 * now - moment)}" if moment > now else f"{age(moment)} ago"
