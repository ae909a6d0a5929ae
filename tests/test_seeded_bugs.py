"""The bugs that `tests.seeded_bugs` puts in can still be put in."""

import pytest

from tests.bugs import BUGS
from tests.seeded_bugs import ROOT


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_text_that_a_bug_replaces_is_there_once(bug):
    assert bug.text(ROOT) != (ROOT / bug.file).read_text()


def test_no_two_bugs_are_the_same():
    assert (
        len({bug.name for bug in BUGS}) == len({(b.file, b.old, b.new) for b in BUGS}) == len(BUGS)
    )
