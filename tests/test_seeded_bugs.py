"""The bugs that `tests.seeded_bugs` puts in can still be put in."""

import pytest

from tests.seeded_bugs import ALL, ROOT


@pytest.mark.parametrize("bug", ALL, ids=lambda bug: bug.name)
def test_the_text_that_a_bug_replaces_is_there_once(bug):
    assert bug.text(ROOT) != (ROOT / bug.file).read_text()


def test_no_two_bugs_are_the_same():
    assert len({bug.name for bug in ALL}) == len({(b.file, b.old, b.new) for b in ALL}) == len(ALL)
