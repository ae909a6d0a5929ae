"""API keys on the command line, in their file and in use: what is stored, seen, counted."""

import itertools
import json
import os
import re
import socket
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from api import cli, keys
from api.errors import TooManyRequests
from api.keys import Key, KeyFile
from api.limits import _MAX_PEERS, FAILURES, Limits
from api.origins import is_open_door

BROKEN = [
    "",
    "{}",
    "[{}]",
    "[",
    "\xff",
    '[{"name": "a", "sha256": "short"}]',
    '[{"name": "a b", "sha256": "' + "0" * 64 + '"}]',
    '[{"name": "a", "sha256": "' + "0" * 64 + '", "concurrent": 0}]',
    '[{"name": "a", "sha256": "' + "0" * 64 + '", "scope": "admin"}]',
]


def without_ipv6() -> bool:
    try:
        socket.create_server(("::", 0), family=socket.AF_INET6).close()
    except OSError:
        return True
    return False


IPV6 = pytest.mark.skipif(without_ipv6(), reason="this system has no IPv6")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "private" / "keys.json"


@pytest.fixture
def config(tmp_path):
    models = "models: {gone: {path: nothing.gguf, aliases: [default]}}\n"
    file = tmp_path / "models.yaml"
    file.write_text(f"server: {{keys: private/keys.json, port: 0}}\n{models}")
    return file


@pytest.fixture
def onebox(config):
    def run(*arguments):
        return CliRunner().invoke(cli.app, [*arguments, "--config", str(config)])

    return run


def test_a_secret_is_printed_once_and_only_its_hash_is_stored(onebox, path):
    added = onebox("keys", "add", "alice")
    secret = added.stdout.strip()
    assert re.fullmatch(r"ob-[\w-]{43}", secret)
    assert secret not in added.stderr + path.read_text() + onebox("keys", "list").stdout
    assert KeyFile(path).find(secret.encode()).name == "alice"


def test_two_keys_are_never_alike(path):
    assert keys.add(path, "alice") != keys.add(path, "bob")


def test_only_its_owner_may_look_at_the_file(path):
    before = os.umask(0)
    try:
        keys.add(path, "alice")
        keys.add(path, "bob")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["keys.json"]


def test_keys_are_listed_with_what_they_may_do(onebox):
    onebox("keys", "add", "alice", "--admin", "--per-minute", "60", "--concurrent", "4")
    onebox("keys", "add", "bob")
    lines = onebox("keys", "list").stdout.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert rows == [["alice", "admin", "4", "60"], ["bob", "infer", "32", "any number"]]


def test_a_key_that_was_removed_opens_nothing(onebox, path):
    secret = onebox("keys", "add", "alice").stdout.strip()
    onebox("keys", "add", "bob")
    assert onebox("keys", "remove", "alice").stdout == "The key of alice is no longer valid.\n"
    assert KeyFile(path).find(secret.encode()) is None
    assert "last one" in onebox("keys", "remove", "bob").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "alice"), "a key called alice already"),
        (("add", "two words"), "letters, digits"),
        (("add", "-x"), None),
        (("add", "alice\n"), "letters, digits"),
        (("add", "n" * 65), "letters, digits"),
        (("remove", "carol"), "no key called 'carol'"),
    ],
)
def test_what_cannot_be_done_with_keys_is_one_sentence(arguments, says, onebox, path):
    keys.add(path, "alice")
    before = path.read_text()
    result = onebox("keys", *arguments)
    assert result.exit_code == (78 if says else 2)
    assert (says or "") in result.stderr and "Traceback" not in result.stderr
    assert path.read_text() == before


@pytest.mark.parametrize("content", BROKEN)
def test_a_damaged_file_starts_no_server_and_is_not_written_over(content, onebox, path):
    path.parent.mkdir()
    path.write_text(content, "latin-1")
    for arguments in (("serve",), ("keys", "add", "alice"), ("keys", "list")):
        result = onebox(*arguments)
        assert result.exit_code == 78
        assert str(path) in result.stderr and result.stderr.count("\n") == 1
    assert path.read_text("latin-1") == content


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path, onebox):
    (tmp_path / "private").write_text("not a folder")
    result = onebox("keys", "add", "alice")
    assert result.exit_code == 78
    assert "cannot be" in result.stderr and result.stderr.count("\n") == 1


def test_keys_that_are_added_at_the_same_time_are_all_kept(path):
    names = [f"name{number}" for number in range(16)]
    with ThreadPoolExecutor(16) as together:
        list(together.map(lambda name: keys.add(path, name), names))
    assert sorted(key.name for key in keys.load(path)) == sorted(names)


def test_without_a_place_in_the_configuration_keys_are_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    CliRunner().invoke(cli.app, ["keys", "add", "alice"])
    assert [key.name for key in keys.load(tmp_path / "onebox" / "keys.json")] == ["alice"]


def watched(path):
    """The view of a server that is asked once in a second."""
    return KeyFile(path, itertools.count().__next__)


def test_a_running_server_looks_at_the_file_twice_in_a_second(path):
    clock = Clock()
    ring = KeyFile(path, clock)
    keys.add(path, "alice")
    clock.now += 0.4
    assert not ring.required()
    clock.now += 0.1
    assert ring.required()


def test_a_running_server_sees_every_change(path):
    ring = watched(path)
    assert not ring.required()
    secret = keys.add(path, "alice").encode()
    assert ring.required() and ring.find(secret).name == "alice"
    keys.add(path, "bob")
    keys.remove(path, "alice")
    assert ring.required() and ring.find(secret) is None


@pytest.mark.parametrize("fate", ["gone", "empty", "damaged", "unreadable"])
def test_once_there_were_keys_a_server_never_opens_again(fate, path):
    secret = keys.add(path, "alice")
    ring = watched(path)
    match fate:
        case "gone":
            path.unlink()
        case "empty":
            keys.remove(path, "alice")
        case "damaged":
            path.write_text("[")
        case "unreadable":
            path.unlink()
            path.mkdir()
    assert ring.required()
    assert ring.find(secret.encode()) is None
    assert ring.damaged == (fate in ("damaged", "unreadable"))


def test_a_file_that_is_damaged_before_its_first_key_closes_the_server(path):
    ring = watched(path)
    path.parent.mkdir()
    path.write_text("[")
    assert ring.required() and ring.damaged
    path.unlink()
    secret = keys.add(path, "alice").encode()
    assert ring.required() and ring.find(secret) and not ring.damaged


@pytest.mark.parametrize("host", ["0.0.0.0", pytest.param("::", marks=IPV6), "0", "0x0"])
def test_the_network_is_not_let_in_without_a_key(host, onebox, path):
    """Exit 66 would mean that the model was looked for."""
    refused = onebox("serve", "--host", host)
    assert refused.exit_code == 78
    assert "onebox keys add" in refused.stderr and refused.stderr.count("\n") == 1
    for _ in range(2):
        opened = onebox("serve", "--host", host, "--insecure-no-auth")
        assert opened.exit_code == 66
        assert "Warning" in opened.stderr and "without a key" in opened.stderr
    keys.add(path, "alice")
    guarded = onebox("serve", "--host", host)
    assert guarded.exit_code == 66 and "Warning" not in guarded.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_on_loopback_no_key_is_needed(host, onebox):
    opened = onebox("serve", "--host", host)
    assert opened.exit_code == 66 and "Warning" not in opened.stderr


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("127.0.0.1", False),
        ("127.8.9.1", False),
        ("::1", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.168.1.4", True),
        ("8.8.8.8", True),
        ("fe80::1%eth0", True),
        ("::ffff:127.0.0.1", True),
    ],
)
def test_an_open_door_is_one_that_a_network_leads_to(address, is_open, path):
    assert is_open_door(address, KeyFile(path)) == is_open
    keys.add(path, "alice")
    assert not is_open_door(address, KeyFile(path))


def key(**limits):
    return Key(name="alice", sha256="0" * 64, **limits)


def test_a_key_has_so_many_requests_at_once_and_gets_them_back():
    usage = Limits().usage(key(concurrent=2))
    usage.begin()
    usage.begin()
    with pytest.raises(TooManyRequests, match="2 requests"):
        usage.begin()
    usage.end()
    usage.begin()


def test_a_key_has_so_many_requests_in_any_minute():
    clock = Clock()
    usage = Limits(clock).usage(key(per_minute=3, concurrent=1))
    for clock.now in (0, 20, 40):
        usage.begin()
        usage.end()
    clock.now = 59.5
    with pytest.raises(TooManyRequests) as refusal:
        usage.begin()
    assert refusal.value.retry_after == 1
    clock.now = 60
    usage.begin()
    usage.end()
    with pytest.raises(TooManyRequests) as refusal:
        usage.begin()
    assert refusal.value.retry_after == 20


def test_what_a_key_does_is_remembered_when_the_file_is_read_again():
    limits = Limits()
    limits.usage(key(concurrent=1)).begin()
    with pytest.raises(TooManyRequests):
        limits.usage(key(concurrent=1)).begin()


def test_an_address_may_fail_so_often_in_a_minute():
    clock = Clock()
    limits = Limits(clock)
    for _ in range(FAILURES):
        limits.failed("10.0.0.1")
    with pytest.raises(TooManyRequests) as refusal:
        limits.failed("10.0.0.1")
    assert refusal.value.retry_after == 60
    limits.failed("10.0.0.2")
    clock.now += 60
    limits.failed("10.0.0.1")


def test_addresses_that_fail_fill_no_memory():
    limits = Limits()
    for number in range(3 * _MAX_PEERS):
        limits.failed(str(number))
    assert len(limits._failures) == _MAX_PEERS


def test_the_file_is_plain_json_that_a_person_can_read(path):
    keys.add(path, "alice", admin=True)
    [stored] = json.loads(path.read_text())
    assert (stored["name"], stored["admin"], stored["per_minute"]) == ("alice", True, None)
    path.write_text(json.dumps([{"name": "bob", "sha256": stored["sha256"]}]))
    assert keys.load(path) == (Key(name="bob", sha256=stored["sha256"]),)
