"""By what the controller comes to the control plane: files that the kubelet keeps up to date."""

from __future__ import annotations

from pathlib import Path

from weft.errors import InvalidRequest
from weft.local.control import ControlApi
from weft.local.token_file import check_token

_MAX_TOKEN_BYTES = 4096


class MeshAccess:
    """The API of a control plane, with whatever token the file has by now."""

    def __init__(self, url: str, *, token_file: Path, roots: Path) -> None:
        """`roots` (PEM) vouch for the control plane; they are followed, and need not be there yet."""
        self._url = url
        self._token_file = token_file
        self._roots = roots
        self._token = ""

    def open(self) -> ControlApi:
        """A client with the token as it is now. Raises InvalidRequest if there is none."""
        self._token = self._read()
        return ControlApi(self._url, token=self._token, roots=self._roots)

    def renewed(self) -> ControlApi | None:
        """A client with another token than the last one, if the file has one by now."""
        try:
            changed = self._read() != self._token
        except InvalidRequest:
            return None
        return self.open() if changed else None

    def _read(self) -> str:
        """The token. A kubelet lets the pod's group read it, where the CLI would say that others can."""
        try:
            with self._token_file.open("rb") as source:
                content = source.read(_MAX_TOKEN_BYTES)
        except OSError as error:
            raise InvalidRequest(
                f"the token in {self._token_file} cannot be read ({error.strerror or error}): "
                "is the Secret with the operator's token mounted?"
            ) from error
        return check_token(content.decode(errors="replace").strip(), str(self._token_file))
