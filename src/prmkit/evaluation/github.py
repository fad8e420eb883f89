"""Files of public GitHub repositories, at a commit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from prmkit.errors import BackendError, FormatError, InvalidSetting, MissingDependency
from prmkit.evaluation.cases import DataFile
from prmkit.files import atomic_binary

if TYPE_CHECKING:
    from prmkit.endpoint import Endpoint

RAW = "https://raw.githubusercontent.com"
LARGE = "https://media.githubusercontent.com/media"
"""Where the content of files lies of which git itself holds a pointer alone (LFS)."""

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize \d+\n"
)


def download(repository: str, commit: str, files: Sequence[DataFile], folder: Path) -> None:
    """Put files of a repository into a folder, each under its last name, whole or not at all.

    A pointer to a large file is followed, and the content compared with the pointer.

    Args:
        repository: ``owner/name``.
        commit: 40 hex digits: a branch or a tag may point elsewhere tomorrow.
        files: which, with the digests that they must have.
        folder: where they are put.

    Raises:
        InvalidSetting: if `commit` is none.
        FormatError: if a file cannot be fetched, or has another content.
        MissingDependency: if httpx2 or stamina is not installed.
    """
    if not _COMMIT.fullmatch(commit):
        raise InvalidSetting(f"{commit!r} is no commit of {repository}; write all 40 hex digits")
    try:
        from prmkit.endpoint import Endpoint, EndpointSettings
    except MissingDependency:
        purpose = "fetching the data from GitHub (or give their files with --data)"
        raise MissingDependency("httpx2 and stamina", "http", purpose) from None
    raw, large = (
        Endpoint(EndpointSettings(url=url, attempts=4, deadline=300.0)) for url in (RAW, LARGE)
    )
    try:
        for file in files:
            route = "/" + quote(f"{repository}/{commit}/{file.path}")
            content = _content(raw, large, route, file)
            with atomic_binary(folder / PurePosixPath(file.path).name) as out:
                out.write(content)
    finally:
        raw.close()
        large.close()


def _content(raw: Endpoint, large: Endpoint, route: str, file: DataFile) -> bytes:
    try:
        content = raw.get_bytes(route)
        pointer = _POINTER.fullmatch(content)
        if pointer is not None:
            content = large.get_bytes(route)
    except BackendError as error:
        raise FormatError(
            f"the file {file.path!r} cannot be fetched ({error}); without a network give the "
            "files with --data"
        ) from error
    expected = {file.sha256, None if pointer is None else pointer[1].decode()} - {None}
    found = hashlib.sha256(content).hexdigest()
    if expected - {found}:
        raise FormatError(
            f"{route} came with the SHA-256 {found}; expected {', '.join(map(str, expected))}: "
            "what came is not the published file, fetch it again or give it with --data"
        )
    return content
