"""Sets up Onebox on this machine: `python3 -m setup` makes `.venv`, which `make` then uses.

Standard library only, because it runs before anything is installed. This file keeps to what every
Python 3 can read, so that an old one can say what is missing. Knows nothing of models or serving.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - older ones come this far
    sys.exit(
        "Onebox needs Python 3.11 or newer and this is "
        f"{sys.version_info[0]}.{sys.version_info[1]}: install one (apt install python3.11-venv) "
        "and name it, as in `make serve PYTHON=python3.11`."
    )


class SetupError(Exception):
    """What is missing or went wrong and what to do about it, in one sentence for a person."""
