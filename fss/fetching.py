"""Files from the network: resumed where they were cut short, held against a checksum, whole or not there."""

import hashlib
import re
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, cast

from fss.bars import Bar
from fss.errors import UserError

_PATIENCE = 60.0  # seconds without a byte
_AT_ONCE = 1 << 20  # bytes


def fetch(url: str, path: Path, sha256: str = "") -> Path:
    """Fetch a file once and for all, and say where it lies.

    What arrives stands in NAME.part until it is whole, and the same call goes on from there.

    Args:
        path: of the file; where there is one, nothing is fetched.
        sha256: its checksum, or the first digits of it. Without, what the server says, if it does as Hugging
            Face's.

    Raises:
        UserError: it could not be fetched, or is another file than its checksum's.
    """
    if path.is_file():
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        announced = _receive(url, part)
        digest = _checksum(part)
    except (OSError, HTTPException, ValueError) as error:  # urllib's own are OSErrors
        hint = f"; {part} holds what came, and the same command goes on from there" if part.is_file() else ""
        raise UserError(f"{url} could not be fetched ({_reason(error)}){hint}") from None
    expected = sha256 or announced
    if not digest.startswith(expected):
        part.unlink()
        raise UserError(
            f"{url} gave another file than wanted: sha256 {digest}, wanted {expected}; it is deleted"
        )
    part.replace(path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB from {url}, sha256 {digest}")
    return path


def _receive(url: str, part: Path) -> str:
    """Append to `part` what it lacks, and return the checksum that the server told; "" for none.

    Raises:
        OSError, HTTPException: the connection fails, or ends too early.
    """
    start, redirects = part.stat().st_size if part.is_file() else 0, _Redirects()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        opened = urllib.request.build_opener(redirects).open(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing from there on: it is whole, or of another file
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return redirects.sha256
        part.unlink()
        return _receive(url, part)
    with cast(HTTPResponse, opened) as response:
        start = start if response.status == 206 else 0
        length = int(response.headers.get("Content-Length") or 0)
        received = _written(response, part, start, length)
    if received < length:
        raise OSError(f"it ended after {received} of {length} bytes")
    return redirects.sha256


def _written(response: HTTPResponse, part: Path, start: int, length: int) -> int:
    """Bytes of a response that went into `part`, from byte `start` on."""
    received = 0
    with (
        part.open("ab" if start else "wb") as file,
        Bar(total=start + length or None, initial=start, unit="B", unit_scale=True, desc=part.stem) as bar,
    ):
        while chunk := response.read(_AT_ONCE):
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    return received


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, and keeps the checksum that Hugging Face tells with one."""

    sha256 = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """As of urllib."""
        etag = str(headers.get("X-Linked-Etag", "")).strip('"')
        self.sha256 = etag if re.fullmatch(r"[0-9a-f]{64}", etag) else self.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
