"""A source of weights -> a verified file on this machine; downloads that survive interruption.

Hub files live in the Hugging Face cache, laid out by its own client, so that other tools share
them. Two things are done here because that client (huggingface_hub 2.4) does not do them: it
discards the part of an interrupted download, and it compares sizes but never SHA-256. This module
does not know what is inside a GGUF file, where a hub may lead, nor how a progress bar looks.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import httpx2
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # it exports them lazily
    WeakFileLock,
    build_hf_headers,
)

from inference.errors import BadModelFile, DownloadError
from inference.hub_client import endpoint, install
from inference.hub_errors import reason, told_plainly
from inference.model import Bundled, HubFile, Source

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes of the whole file."""
Announced = Callable[[str, int], None]
"""Called with the SHA-256 and the size in bytes that the file must have, before anything else."""


def resolve(source: Source) -> Path:
    """The weights of `source`, if they are on this machine and were verified when they came.

    Raises DownloadError (a hub file that is not here or changed since) and BadModelFile (a local
    or bundled file that cannot be read).
    """
    if isinstance(source, HubFile):
        return _pulled(source)
    if isinstance(source, Bundled):
        return _readable(Path(__file__).parent / "demo" / f"{source.name}.gguf")
    return _readable(source.path)


def installed(source: Source) -> bool:
    """Whether `resolve` would give a file."""
    try:
        resolve(source)
    except (BadModelFile, DownloadError):
        return False
    return True


def _unheard(sha256: str, size: int) -> None:
    pass


def pull(source: Source, progress: Progress, announced: Announced = _unheard) -> Path:
    """Brings a hub file here, going on where an earlier attempt stopped, and verifies it.

    A hub file that is already here is read through again, which needs no network; any other
    source has nothing to bring. Raises as `resolve`, with what happened and what to do.
    """
    if isinstance(source, HubFile):
        with told_plainly(source, _cache()):
            install()
            here = _cached(source)
            if here is None or not _verify(_blob(here)):
                _link(source, _fetch(source, progress, announced))
    return resolve(source)


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise BadModelFile(f"There is no file {path}.")
    if not os.access(path, os.R_OK):
        raise BadModelFile(f"{path} is there, but this user may not read it.")
    return path


def _pulled(source: HubFile) -> Path:
    path = _cached(source)
    if path is None:
        raise DownloadError(
            f"{source.name} is not on this machine; fetch it with: onebox pull {source.name}"
        )
    if not _is_marked(_blob(path)):
        raise DownloadError(
            f"{path} was not verified, or has changed since; "
            f"check it, and repair it if need be, with: onebox pull {source.name}"
        )
    return path


# The hub's cache: <cache>/models--OWNER--NAME/snapshots/COMMIT/FILE is a link to blobs/ETAG, and
# the ETag of a large file is its SHA-256, so a blob's name says what its content must be.


def _cache() -> Path:
    home = os.environ.get("HF_HOME")
    default = os.path.join(home, "hub") if home else constants.HF_HUB_CACHE
    return Path(os.environ.get("HF_HUB_CACHE", default)).expanduser()


def _cached(source: HubFile) -> Path | None:
    try:
        found = try_to_load_from_cache(
            source.repo, source.file, cache_dir=_cache(), revision=source.revision
        )
    except UnicodeDecodeError:  # in the file that says which commit a branch is at
        return None
    if not isinstance(found, str) or not os.path.islink(found):
        return None
    path = Path(found)
    return path if source.sha256 in (None, _blob(path).name) else None


def _blob(path: Path) -> Path:
    return path.parent / path.readlink()


def _marker(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.verified")


def _fingerprint(blob: Path) -> bytes:
    stat = blob.stat()
    return json.dumps({"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}).encode()


def _is_marked(blob: Path) -> bool:
    """Whether `blob` is, by size and time of last change, what was once verified."""
    return _marker(blob).exists() and _marker(blob).read_bytes() == _fingerprint(blob)


def _verify(blob: Path) -> bool:
    """Marks a blob whose content is what its name says, and deletes any other."""
    if not blob.exists():
        return False
    if _sha256(blob) != blob.name:
        blob.unlink()
        return False
    if not _is_marked(blob):  # a full disk would take away a mark that is right
        _mark(blob)
    return True


def _mark(blob: Path) -> None:
    _marker(blob).write_bytes(_fingerprint(blob))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class _Remote:
    url: str
    sha256: str
    size: int


def _ask(source: HubFile) -> _Remote:
    url = hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=endpoint())
    metadata = get_hf_file_metadata(url, endpoint=endpoint())
    etag = metadata.etag or ""
    if metadata.size is None or not re.fullmatch("[0-9a-f]{64}", etag):
        raise DownloadError(
            f"{endpoint()} does not say which size and SHA-256 {source.repo}/{source.file} has, "
            "so a download could not be verified; is HF_ENDPOINT right?"
        )
    if source.sha256 not in (None, etag):
        raise DownloadError(
            f"The hub has another {source.file} than models.yaml expects: its SHA-256 is {etag}, "
            f"not {source.sha256}. Nothing was downloaded; correct `sha256` or pin `revision`."
        )
    return _Remote(url, etag, metadata.size)


def _fetch(source: HubFile, progress: Progress, announced: Announced) -> Path:
    """Puts the verified blob into the cache, under the lock that the hub's own client takes."""
    remote = _ask(source)
    announced(remote.sha256, remote.size)
    folder = repo_folder_name(repo_id=source.repo, repo_type="model")
    blob = _cache() / folder / "blobs" / remote.sha256
    lock = _cache() / ".locks" / folder / f"{remote.sha256}.lock"
    blob.parent.mkdir(parents=True, exist_ok=True)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if _verify(blob):
            return blob
        part = blob.with_name(f"{blob.name}.incomplete")
        for _ in range(2 if part.exists() else 1):  # what was kept may be what is wrong
            _download(source, remote, part, progress)
            if _sha256(part) == remote.sha256:
                part.replace(blob)
                _mark(blob)
                return blob
            part.unlink()
    raise DownloadError(
        f"What arrived as {source.file} does not have the SHA-256 that the hub announces, "
        f"so it was deleted. Try once more: onebox pull {source.name}"
    )


def _link(source: HubFile, blob: Path) -> None:
    """Lets the hub's client, which finds the blob in its place, make the rest of its layout."""
    path = hf_hub_download(
        source.repo,
        source.file,
        revision=source.revision,
        cache_dir=_cache(),
        endpoint=endpoint(),
        tqdm_class=cast(Any, partial(_refuse_another, source)),
    )
    if not os.path.islink(path):  # the client copies, or half copies, where it could not try a link
        os.unlink(path)
        os.symlink(os.path.relpath(blob, os.path.dirname(path)), path)


def _refuse_another(source: HubFile, **_: object) -> None:
    """What hf_hub_download calls before it fetches: then the hub names another blob than before."""
    raise DownloadError(
        f"The hub got another {source.file} while this one was on its way. "
        f"Fetch that with: onebox pull {source.name}"
    )


def _download(source: HubFile, remote: _Remote, part: Path, progress: Progress) -> None:
    """Appends to `part` the bytes that it lacks."""
    here = part.stat().st_size if part.exists() else 0
    if here > remote.size:
        part.unlink()
        here = 0
    _require_space(source, remote.size - here)
    with part.open("ab") as file:
        if here < remote.size:
            _append(source, remote.url, file, partial(_Meter, progress, remote.size))
        file.flush()
        os.fsync(file.fileno())  # the marker must not outlive the content in a power cut
        if here:  # memory may have what the disk refused in an earlier attempt
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _require_space(source: HubFile, missing: int) -> None:
    free = shutil.disk_usage(_cache()).free
    if missing > free:
        raise DownloadError(
            f"{source.name} needs {missing / 1e9:.1f} GB more, but only {free / 1e9:.1f} GB are "
            f"free in {_cache()}. Make room there, or set HF_HOME to a larger disk."
        )


class _TooMuchError(Exception):
    """More bytes came than the hub announced."""


class _Meter:
    """What http_get takes for a progress bar: it counts bytes before they are written."""

    def __init__(self, report: Progress, size: int, *, initial: int, **_: object) -> None:
        self._report, self._size, self._here = report, size, initial

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int) -> None:
        self._here += count
        if self._here > self._size:
            raise _TooMuchError
        self._report(self._here, self._size)


def _append(source: HubFile, url: str, file: BinaryIO, meter: partial[_Meter]) -> None:
    try:
        http_get(
            url,
            file,
            resume_size=file.tell(),
            headers=build_hf_headers(),
            tqdm_class=cast(Any, meter),
        )
    except (httpx2.TransportError, HfHubHTTPError) as error:
        raise DownloadError(
            f"The download of {source.name} was interrupted ({reason(error)}). What has arrived "
            f"is kept; go on with: onebox pull {source.name}"
        ) from error
    except _TooMuchError:
        Path(file.name).unlink()
        raise DownloadError(
            f"The hub sends more bytes than it announces for {source.file}, so what arrived was "
            f"deleted. Try once more: onebox pull {source.name}"
        ) from None
