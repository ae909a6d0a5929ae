"""The browser in which the tests use the page: where it is, and how it gets here.

A machine without one is none the worse for all else: what cannot be installed is said, and the
tests that need it are skipped.
"""

import os
import shutil
import subprocess
from typing import Final, TextIO

ADVICE: Final = (
    "The tests of the page need Chromium, which is not there: install it "
    "(on Debian: apt-get install chromium fonts-noto-cjk)."
)
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_APT: Final = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-qq")
_WHAT: Final = ("install", "--no-install-recommends", "chromium", "fonts-noto-cjk")


def installed() -> str | None:
    """The path of a Chromium, or of a Chrome."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def ensure(out: TextIO) -> None:
    """Install it where this user may; otherwise say what to do."""
    if installed():
        return
    who = _as_root()
    if who is not None:
        print("Installing Chromium, for the tests of the page.", file=out, flush=True)
        # What is known of packages may be old or missing: then it is asked for, and tried again.
        _ = _runs(*who, *_APT, *_WHAT) or (
            _runs(*who, *_APT, "update") and _runs(*who, *_APT, *_WHAT)
        )
    if not installed():
        print(ADVICE, file=out, flush=True)


def _as_root() -> tuple[str, ...] | None:
    """What to put before a command so that it may install packages; None if nothing helps."""
    if not shutil.which("apt-get"):
        return None
    if os.geteuid() == 0:
        return ()
    return ("sudo", "-n") if _runs("sudo", "-n", "true") else None


def _runs(*command: str) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except OSError:
        return False
    return done.returncode == 0
