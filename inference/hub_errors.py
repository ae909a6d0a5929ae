"""What the hub's client and the disk raise -> a DownloadError for a person.

It does not know what was being done when it was raised.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from inference.errors import DownloadError
from inference.hub_client import endpoint
from inference.model import HubFile


def reason(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"status {error.response.status_code}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).splitlines()[0]


_UNREACHABLE = "{hub} cannot be reached ({error}). Check the network, then: onebox pull {name}"
_SENTENCES: tuple[tuple[type[Exception], str], ...] = (  # the first that fits; most special first
    (
        GatedRepoError,
        "{repo} is gated: accept its terms at {hub}/{repo}, then set HF_TOKEN to a token of the "
        "account that did.",
    ),
    (
        RepositoryNotFoundError,
        "{hub} has no repository {repo}, or it is private: check `repo` in models.yaml, or set "
        "HF_TOKEN to a token that may read it.",
    ),
    (
        RevisionNotFoundError,
        "{repo} has no revision {revision}: check `revision` in models.yaml.",
    ),
    (
        RemoteEntryNotFoundError,
        "{repo} has no file {file}: check `files` in models.yaml against {hub}/{repo}/tree/main.",
    ),
    (
        HfHubHTTPError,
        "{hub} refused {repo}/{file} ({error}). If HF_TOKEN is set, check it; else try later: "
        "onebox pull {name}",
    ),
    (
        httpx2.TooManyRedirects,
        "{hub} leads from one address to the next for {repo}/{file} and never to the file; is "
        "HF_ENDPOINT right? If so, try later: onebox pull {name}",
    ),
    (httpx2.TransportError, _UNREACHABLE),
    (httpx2.InvalidURL, _UNREACHABLE),
    (OfflineModeIsEnabled, "HF_HUB_OFFLINE forbids downloads; unset it, then: onebox pull {name}"),
    (LocalEntryNotFoundError, _UNREACHABLE),
    (
        UnicodeDecodeError,
        "What {cache} says of {repo} is damaged: delete the folder refs of that repository there, "
        "then: onebox pull {name}",
    ),
    (
        OSError,
        "{name} cannot be stored in {cache} ({error}). Make room there, or set HF_HOME to another "
        "disk; then: onebox pull {name}",
    ),
)


@contextmanager
def told_plainly(source: HubFile, cache: Path) -> Iterator[None]:
    """Turns what the hub's client and the disk raise into a DownloadError for a person."""
    try:
        yield
    except tuple(kind for kind, _ in _SENTENCES) as error:
        sentence = next(text for kind, text in _SENTENCES if isinstance(error, kind))
        about = asdict(source) | {"hub": endpoint(), "cache": cache, "error": reason(error)}
        raise DownloadError(sentence.format(**about)) from error
