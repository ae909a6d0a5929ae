"""Weights arrive whole or not at all: the real hub client against a hub on 127.0.0.1."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import close_session, hf_hub_download

from inference.errors import BadModelFile, DownloadError
from inference.hub import installed, pull, resolve
from inference.model import Bundled, HubFile, LocalFile
from tests.hub_stand_in import COMMIT, REPO, HubStandIn, hub_stand_in

SOURCE = HubFile("weights:Q8_0", REPO, "weights-Q8_0.gguf")
CHUNK = 10 * 2**20  # the hub's client writes in chunks of this size
SMALL = random.Random(1).randbytes(100_000)
LARGE = random.Random(2).randbytes(CHUNK * 5 // 2)


PAGE = f"/{REPO}/resolve/main/weights-Q8_0.gguf"
connect = socket.socket.connect


def connect_here(self: socket.socket, address: tuple[str, int]) -> None:
    assert address[0].startswith(("127.", "::1")), f"a test reached for {address[0]}"
    connect(self, address)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    monkeypatch.setattr(socket.socket, "connect", connect_here)
    with hub_stand_in(SMALL) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
        close_session()


def ignore(here: int, size: int) -> None:
    pass


def partial_file(home: Path) -> Path:
    [part] = home.rglob("*.incomplete")
    return part


def refused(source: HubFile = SOURCE) -> str:
    """The sentence with which `source` is refused; it is then not installed."""
    with pytest.raises(DownloadError) as caught:
        pull(source, ignore)
    assert not installed(source)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_pulled_file_is_whole_verified_and_in_the_hubs_own_cache(
    hub: HubStandIn, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    path = pull(SOURCE, lambda here, size: seen.append((here, size)))
    assert path.read_bytes() == SMALL
    assert path == resolve(SOURCE)
    assert path.is_relative_to(tmp_path / "hf" / "hub" / "models--org--weights-GGUF")
    assert path == Path(
        hf_hub_download(REPO, SOURCE.file, cache_dir=tmp_path / "hf" / "hub", local_files_only=True)
    )
    assert seen[-1] == (len(SMALL), len(SMALL))
    assert not list(tmp_path.rglob("*.incomplete"))


def test_what_is_not_here_is_refused_with_the_command_that_brings_it(hub: HubStandIn) -> None:
    assert not installed(SOURCE)
    with pytest.raises(DownloadError, match="onebox pull weights:Q8_0"):
        resolve(SOURCE)


def test_an_interrupted_pull_fetches_only_the_rest(hub: HubStandIn, tmp_path: Path) -> None:
    hub.content = LARGE
    hub.cut_at = CHUNK + 1000
    assert "interrupted" in refused()
    kept = partial_file(tmp_path).stat().st_size
    assert kept == CHUNK
    hub.recover()
    hub.sent = 0
    seen: list[int] = []
    assert pull(SOURCE, lambda here, _: seen.append(here)).read_bytes() == LARGE
    assert hub.has_sent(len(LARGE) - kept)
    assert seen[0] > kept
    assert seen[-1] == len(LARGE)


def test_a_killed_pull_fetches_only_the_rest(hub: HubStandIn, tmp_path: Path) -> None:
    hub.content = LARGE
    hub.stall_at = 2 * CHUNK + 1000
    script = (
        "from inference.model import HubFile; from inference.hub import pull\n"
        f"pull({SOURCE!r}, lambda here, size: print(here, flush=True))"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.readline()  # the second chunk came, so the first is on the disk
        child.kill()
    assert not installed(SOURCE)
    kept = partial_file(tmp_path).stat().st_size
    assert kept >= CHUNK
    hub.recover()
    hub.sent = 0
    assert pull(SOURCE, ignore).read_bytes() == LARGE
    assert hub.has_sent(len(LARGE) - kept)


def test_a_pull_that_is_killed_again_and_again_arrives(hub: HubStandIn, tmp_path: Path) -> None:
    hub.content = LARGE
    script = (
        "from inference.model import HubFile; from inference.hub import pull\n"
        f"print(flush=True); pull({SOURCE!r}, lambda here, size: print(here, flush=True))"
    )
    chance, kept = random.Random(5), 0
    for _ in range(4):
        hub.stall_at = chance.randrange(kept + 1, len(LARGE))
        command = [sys.executable, "-c", script]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
        ) as child:
            assert child.stdout is not None
            for _ in range(1 + (hub.stall_at - kept) // CHUNK):
                child.stdout.readline()
            child.kill()
        assert not installed(SOURCE)
        parts = list(tmp_path.rglob("*.incomplete"))
        assert len(parts) <= 1
        here = parts[0].stat().st_size if parts else 0
        assert here >= kept  # nothing that arrived is lost
        kept = here
    hub.recover()
    hub.sent = 0
    assert pull(SOURCE, ignore).read_bytes() == LARGE
    assert hub.has_sent(len(LARGE) - kept)
    assert installed(SOURCE)


@pytest.mark.parametrize("kind", ["incomplete", "verified"])
def test_a_full_disk_is_named_and_a_pull_goes_on_when_there_is_room(
    hub: HubStandIn, tmp_path: Path, kind: str
) -> None:
    blobs = tmp_path / "hf" / "hub" / "models--org--weights-GGUF" / "blobs"
    blobs.mkdir(parents=True)
    full = blobs / f"{hub.sha256}.{kind}"
    full.symlink_to("/dev/full")
    sentence = refused()
    assert "No space left on device" in sentence
    assert "onebox pull weights:Q8_0" in sentence
    full.unlink()
    assert pull(SOURCE, ignore).read_bytes() == SMALL


@pytest.mark.parametrize("pattern", ["*.verified", "refs/main"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe\0"])
def test_a_damaged_cache_is_repaired_by_a_pull(
    hub: HubStandIn, tmp_path: Path, pattern: str, content: bytes
) -> None:
    pull(SOURCE, ignore)
    [damaged] = tmp_path.rglob(pattern)
    damaged.write_bytes(content)
    assert not installed(SOURCE)
    if damaged.name == "main" and b"\xff" in content:  # the hub's own client cannot read it
        assert "delete the folder refs" in refused()
        damaged.unlink()
    assert pull(SOURCE, ignore).read_bytes() == SMALL
    assert installed(SOURCE)


def test_a_server_without_ranges_sends_everything_again(hub: HubStandIn, tmp_path: Path) -> None:
    hub.content = LARGE
    hub.cut_at = CHUNK + 1000
    refused()
    hub.recover()
    hub.ignores_ranges = True
    seen: list[int] = []
    assert pull(SOURCE, lambda here, _: seen.append(here)).read_bytes() == LARGE
    assert seen[-1] == len(LARGE)


@pytest.mark.parametrize("leftover", [SMALL, SMALL[:-1], SMALL + b"more", bytes(1000)])
def test_any_leftover_of_an_earlier_attempt_is_made_whole(
    hub: HubStandIn, tmp_path: Path, leftover: bytes
) -> None:
    blobs = tmp_path / "hf" / "hub" / "models--org--weights-GGUF" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.sha256}.incomplete").write_bytes(leftover)
    assert pull(SOURCE, ignore).read_bytes() == SMALL


def test_wrong_bytes_are_deleted_and_never_installed(hub: HubStandIn, tmp_path: Path) -> None:
    hub.wrong_bytes = True
    assert "SHA-256" in refused()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    hub.recover()
    assert pull(SOURCE, ignore).read_bytes() == SMALL


def test_a_file_that_changed_is_refused_until_a_pull_repairs_it(hub: HubStandIn) -> None:
    path = pull(SOURCE, ignore)
    with path.open("r+b") as file:
        file.write(bytes([SMALL[0] ^ 1]))
    assert not installed(SOURCE)
    assert pull(SOURCE, ignore).read_bytes() == SMALL


def test_another_programs_download_counts_once_it_is_verified(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hf" / "hub"
    hf_hub_download(REPO, SOURCE.file, cache_dir=cache, endpoint=hub.url)
    assert not installed(SOURCE)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    pull(SOURCE, ignore)
    assert installed(SOURCE)


def test_two_pulls_at_once_share_one_download(hub: HubStandIn) -> None:
    with ThreadPoolExecutor() as threads:
        paths = list(threads.map(lambda _: pull(SOURCE, ignore), range(2)))
    assert paths == [resolve(SOURCE)] * 2
    assert hub.has_sent(len(SMALL))


def test_a_token_opens_a_gated_repository_and_stays_at_the_hub(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "let-me-in"
    assert "HF_TOKEN" in refused()
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert pull(SOURCE, ignore).read_bytes() == SMALL
    assert hub.tokens_at_the_cdn == []


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (
            "http://169.254.169.254/latest/meta-data",
            "no hub may lead to the address 169.254.169.254",
        ),
        ("http://0.0.0.0:{port}/cdn/file", "no hub may lead to the address 0.0.0.0"),
        (
            "http://[::ffff:169.254.169.254]/",
            "no hub may lead to the address ::ffff:169.254.169.254",
        ),
        ("http://ok\\@0.0.0.0:{port}/cdn/file", "no hub may lead to the address 0.0.0.0"),
        ("ftp://127.0.0.1:{port}/cdn/file", "which is not https"),
        ("http://[::1:{port}/cdn/file", "no address"),
    ],
)
def test_a_hub_may_not_lead_just_anywhere(hub: HubStandIn, place: str, words: str) -> None:
    hub.leads_to = place.format(port=hub.server_port)
    assert words in refused()
    assert hub.sent == 0


@pytest.mark.parametrize(
    ("host", "answers"),
    [("", 1 + 3), ("http://localhost:{port}", 1 + 1 + 3)],  # who goes on: the hub's client, httpx2
)
def test_redirects_end_after_three(hub: HubStandIn, host: str, answers: int) -> None:
    hub.leads_to = host.format(port=hub.server_port) + PAGE
    assert "never to the file" in refused()
    assert hub.described == answers


def test_more_than_was_announced_is_not_stored(hub: HubStandIn, tmp_path: Path) -> None:
    hub.surplus = 4 * CHUNK
    assert "more bytes than it announces" in refused()
    assert not list(tmp_path.rglob("*.incomplete"))
    hub.recover()
    hub.announced_size = len(SMALL) - 1
    assert "more bytes than it announces" in refused()
    hub.announced_size = None
    assert pull(SOURCE, ignore).read_bytes() == SMALL


def test_what_changes_at_the_hub_meanwhile_is_not_fetched_unseen(
    hub: HubStandIn, tmp_path: Path
) -> None:
    def change(here: int, size: int) -> None:
        hub.content = LARGE

    sha256 = hub.sha256
    with pytest.raises(DownloadError, match="another weights-Q8_0"):
        pull(SOURCE, change)
    assert {path.stem for path in tmp_path.rglob("blobs/*")} == {sha256}
    assert pull(SOURCE, ignore).read_bytes() == LARGE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repo": "org/other"}, "no repository org/other"),
        ({"file": "other.gguf"}, "no file other.gguf"),
        ({"revision": "v9"}, "no revision v9"),
        ({"sha256": "0" * 64}, "Nothing was downloaded"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    hub: HubStandIn, change: dict[str, str], words: str
) -> None:
    assert words in refused(replace(SOURCE, **change))
    assert hub.sent == 0


def test_a_hub_that_cannot_be_reached_is_named(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert "http://127.0.0.1:1 cannot be reached" in refused()


def test_a_server_that_is_no_hub_is_named(hub: HubStandIn) -> None:
    hub.announces_nothing = True
    assert "HF_ENDPOINT" in refused()


def test_a_file_larger_than_the_free_space_is_not_begun(hub: HubStandIn) -> None:
    hub.announced_size = 10**18
    assert "1000000000.0 GB more" in refused()
    assert hub.sent == 0


def test_a_cache_that_cannot_be_written_is_named(hub: HubStandIn, tmp_path: Path) -> None:
    (tmp_path / "hf").write_text("a file where a folder belongs")
    assert f"cannot be stored in {tmp_path / 'hf' / 'hub'}" in refused()


def test_a_pinned_commit_is_found_again_without_the_hub(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = replace(SOURCE, revision=COMMIT, sha256=hub.sha256)
    pull(pinned, ignore)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert pull(pinned, ignore) == resolve(pinned)
    assert not installed(replace(pinned, sha256="0" * 64))


def test_a_local_file_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF")
    assert resolve(LocalFile(path)) == pull(LocalFile(path), ignore) == path


@pytest.mark.parametrize("name", ["absent.gguf", os.curdir])
def test_a_local_path_without_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadModelFile, match=str(tmp_path)):
        resolve(LocalFile(tmp_path / name))


def test_a_bundled_model_that_is_not_in_the_package_is_refused() -> None:
    assert not installed(Bundled("no-such-model"))
