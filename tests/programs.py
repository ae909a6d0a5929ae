"""Programs that are not ours and that some tests need."""

import os

import pytest

from setup.debian import NEEDED, where


def missing(program: str) -> None:
    """Skip the test, or fail where everything has to be tested, unless `program` is here."""
    if where(program):
        return
    sentence = f"{program} is missing: python3 -m setup.debian installs it ({NEEDED[program]})."
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)
