"""Looks the locked packages up in the index's list of known vulnerabilities, by way of pip-audit.

    build/audit/bin/python -m setup.audit

Exit status 1 says that a hole is known which is not in `EXCUSED`. An index may tell nothing of a
release, as a mirror does that knows the latest one only: such packages are named.
"""

import sys
from pathlib import Path
from typing import Any, Final

import requests
import truststore
from pip_audit._dependency_source import RequirementSource
from pip_audit._service import ConnectionError as NoConnection
from pip_audit._service import PyPIService, ServiceError

LOCKS: Final = ("build", "dev", "llama")
EXCUSED: Final = {
    "GHSA-w8v5-vhqr-4h9v": "diskcache unpickles the files of a cache, and here is none: "
    "llama-cpp-python imports it, and nobody makes one.",
}


class _Session:
    """Asks about the project where the index has no page for the release: that one tells of the
    latest release."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def get(self, url: str, timeout: int | None = None) -> Any:
        answer = self._session.get(url, timeout=timeout)
        if answer.status_code != 404:
            return answer
        project, release, _ = url.rsplit("/", 2)
        latest = self._session.get(f"{project}/json", timeout=timeout)
        return latest if latest.ok and latest.json()["info"]["version"] == release else answer


def look_up(package: Any, service: PyPIService) -> dict[str, Any] | None:
    """The known holes of a package by name, without the excused ones; None if nothing is told of
    it."""
    try:
        told, holes = service.query(package)
    except (NoConnection, ServiceError, requests.RequestException):
        return None
    if told.is_skipped():
        return None
    return {hole.id: hole for hole in holes if not EXCUSED.keys() & {hole.id, *hole.aliases}}


def main() -> int:
    """Print what is known; 0 if that is nothing bad."""
    truststore.inject_into_ssl()  # as pip does: what the system trusts, a proxy's word too
    service = PyPIService(timeout=15)
    service.session = _Session(service.session)
    locks = [Path("locks", f"{name}.txt") for name in LOCKS]
    packages = list(RequirementSource(locks, no_deps=True, disable_pip=True).collect())
    found = {str(package.name): look_up(package, service) for package in packages}
    untold = sorted(name for name, holes in found.items() if holes is None)
    for name, holes in found.items():
        for id, hole in (holes or {}).items():
            fixed = ", ".join(map(str, hole.fix_versions)) or "no release"
            print(f"{name}: {id}, mended in {fixed}: {hole.description[:300]}")
    print(f"Audited {len(found) - len(untold)} of {len(found)} locked packages.")
    if untold:
        print(f"Warning: the index tells nothing of the locked releases of {', '.join(untold)}.")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
