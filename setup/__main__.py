"""The command line of the set-up. Does nothing itself; turns errors into a sentence."""

import argparse
import sys
from pathlib import Path

from setup import SetupError
from setup.environment import Request, set_up

_ROOT = Path(__file__).parent.parent


def main() -> int:
    """Sets up this checkout; 0 if it is ready, 1 if a sentence on stderr says why not."""
    parser = argparse.ArgumentParser(prog="python3 -m setup", description="Makes .venv ready.")
    parser.add_argument("--extra", action="append", default=[], help="optional dependencies")
    parser.add_argument("--cuda", default="", help="1 or 0; without it, as the last time")
    arguments = parser.parse_args()
    cuda = {"": None, "0": False}.get(arguments.cuda, True)
    try:
        set_up(_ROOT, Request(frozenset(arguments.extra), cuda))
    except (SetupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
