"""How the tests get their browser: real processes, stand-ins for apt-get and sudo, no network."""

import io
import os

import pytest

from setup import chromium
from setup.chromium import ADVICE


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes programs of scripts; there are no others but the shell's and env."""
    (folder := tmp_path / "bin").mkdir()
    for name in ("env", "sh", "chmod", "cat"):
        found = next(
            path for path in (f"/usr/bin/{name}", f"/bin/{name}") if os.access(path, os.X_OK)
        )
        (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))

    def program(name, script):
        (path := folder / name).write_text(f"#!/bin/sh\necho {name} $* >> {tmp_path}/log\n{script}")
        path.chmod(0o755)

    def ran():
        log = tmp_path / "log"
        return log.read_text().splitlines() if log.exists() else []

    program.ran = ran
    program.installs = f"printf '#!/bin/sh' > {folder}/chromium; chmod 755 {folder}/chromium"
    return program


def ensured() -> str:
    chromium.ensure(out := io.StringIO())
    return out.getvalue()


def test_what_is_there_is_left_alone(machine):
    machine("apt-get", "exit 1")
    machine("google-chrome", "")
    assert (ensured(), machine.ran()) == ("", [])


def test_root_installs_it(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    machine("apt-get", machine.installs)
    assert ADVICE not in ensured()
    assert chromium.installed().endswith("/chromium")
    [line] = machine.ran()
    assert "chromium" in line


def test_lists_that_are_missing_are_asked_for(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    known = tmp_path / "known"
    update = f'case "$*" in *update*) : > {known}; exit 0;; esac'
    machine("apt-get", f"{update}\n[ -e {known} ] || exit 100\n{machine.installs}")
    assert ADVICE not in ensured()
    assert [("update" in line) for line in machine.ran()] == [False, True, False]


def test_sudo_is_used_where_it_asks_for_nothing(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine("apt-get", machine.installs)
    machine("sudo", '[ "$1" = -n ] || exit 1; shift; "$@"')
    machine("true", "")
    assert ADVICE not in ensured()


@pytest.mark.parametrize("apt", [None, "exit 100"])
def test_who_cannot_install_it_learns_what_to_do(machine, monkeypatch, apt):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if apt:
        machine("apt-get", apt)
        machine("sudo", "exit 1")
    assert ensured() == f"{ADVICE}\n"
