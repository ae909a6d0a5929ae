"""Programs for tests, installed as far as that is possible: with a stand-in for apt-get."""

import os
from pathlib import Path

import pytest

from setup import debian

PROGRAM = "onebox-test-program"
INSTALLS = f'echo "$*" >> {{log}}; touch {{folder}}/{PROGRAM}; chmod +x {{folder}}/{PROGRAM}'
REFUSES = 'echo "$*" >> {log}; echo Reading; echo "E: Unable to locate package p" >&2; exit 100'
NEEDS_A_LIST = 'if [ "$1" = update ]; then echo "$*" >> {log}; touch {folder}/list; '
NEEDS_A_LIST += f"elif [ -e {{folder}}/list ]; then {INSTALLS}; else {REFUSES}; fi"


class Machine:
    """Its PATH is one folder, in which there is what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "log"

    def has(self, name: str, script: str) -> None:
        path = self._folder / name
        body = script.format(log=self._log, folder=self._folder)
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
        path.chmod(0o755)

    def said(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = debian.where
    here = lambda program: found(program) if (tmp_path / program).exists() else None  # noqa: E731
    monkeypatch.setattr(debian, "where", here)
    (tmp_path / "env").symlink_to("/usr/bin/env")
    return Machine(tmp_path)


def test_what_is_there_is_left_alone(machine):
    machine.has("apt-get", REFUSES)
    machine.has(PROGRAM, "true")
    assert debian.have(PROGRAM, "p") == "" and not machine.said()


def test_root_installs_a_package_and_starts_no_service(machine):
    machine.has("apt-get", 'echo "$SYSTEMD_OFFLINE" >> {log}; ' + INSTALLS)
    assert debian.have(PROGRAM, "p") == ""
    assert machine.said() == ["1", "install --yes --quiet --no-install-recommends p"]


def test_a_list_of_packages_is_fetched_where_it_helps(machine):
    machine.has("apt-get", NEEDS_A_LIST)
    assert debian.have(PROGRAM, "p") == ""
    assert [line.split()[0] for line in machine.said()] == ["install", "update", "install"]


def test_what_apt_get_refuses_is_one_sentence(machine):
    machine.has("apt-get", REFUSES)
    sentence = debian.have(PROGRAM, "p")
    assert sentence == f"{PROGRAM} is missing: apt-get says E: Unable to locate package p"


@pytest.mark.parametrize("sudo", ["", "exit 1"])
def test_who_is_not_root_is_told_what_to_install(machine, monkeypatch, sudo):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.has("apt-get", INSTALLS)
    if sudo:
        machine.has("sudo", sudo)
    sentence = debian.have(PROGRAM, "p")
    assert sentence == f"{PROGRAM} is missing: install it as root (apt-get install p)."
    assert not machine.said()


def test_sudo_is_used_where_it_asks_for_no_password(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.has("apt-get", 'echo "$SYSTEMD_OFFLINE" >> {log}; ' + INSTALLS)
    machine.has("sudo", '[ "$1" = -n ] && shift && PATH={folder}:$PATH exec "$@"')
    assert debian.have(PROGRAM, "p") == "" and machine.said()[0] == "1"


def test_without_apt_get_it_is_told_too(machine):
    assert "install it as root" in debian.have(PROGRAM, "p")


def test_the_command_tells_what_is_missing_and_does_not_fail(machine, capsys):
    assert debian.main() == 0
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in told] == list(debian.NEEDED)
