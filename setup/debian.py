"""Programs that some tests need: `python3 -m setup.debian` installs Debian's where one is missing.

Onebox itself needs none of them. Where apt-get is not there or may not be used, a sentence says
what is missing and nothing else happens: the tests that need the program then say so too.
"""

import os
import shutil
import subprocess
import sys
from typing import Final

NEEDED: Final = {
    "chromium": "chromium fonts-noto-cjk",  # without a font a screenshot says nothing in Chinese
    "nginx": "nginx",
    "openssl": "openssl",
}
"""Programs by name, each with the packages that it needs."""
_ENVIRONMENT: Final = ("env", "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_OFFLINE=1")
_INSTALL: Final = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends")


def where(program: str) -> str | None:
    """The path of `program`; servers are in folders that only root's PATH may name."""
    folders = (os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin")
    return shutil.which(program, path=os.pathsep.join(folders))


def have(program: str, packages: str) -> str:
    """Empty if `program` is there, already or now; else a sentence that says why not."""
    if where(program):
        return ""
    root = _as_root()
    if root is None:
        return f"{program} is missing: install it as root (apt-get install {packages})."
    told = _run(*root, *_INSTALL, *packages.split())
    if not where(program):  # the list of packages may be old, or none
        _run(*root, "apt-get", "update", "--quiet")
        told = _run(*root, *_INSTALL, *packages.split())
    return "" if where(program) else f"{program} is missing: apt-get says {told}"


def _as_root() -> list[str] | None:
    """How a command is begun that installs packages and starts no service; None if none may."""
    if not where("apt-get"):
        return None
    if os.geteuid() == 0:
        return [*_ENVIRONMENT]
    sudo = where("sudo")
    asked = sudo and subprocess.run([sudo, "-n", "true"], check=False, capture_output=True)
    if not sudo or not asked or asked.returncode:
        return None
    return [sudo, "-n", *_ENVIRONMENT]


def _run(*command: str) -> str:
    """The last line that `command` says."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else "nothing"


def main() -> int:
    """Install what is missing; 0 whatever became of it, for tests say what they miss."""
    for program, packages in NEEDED.items():
        if why_not := have(program, packages):
            print(why_not, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
