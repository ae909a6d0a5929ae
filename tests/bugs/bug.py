"""What a bug is that `tests.seeded_bugs` puts into the project."""

from dataclasses import dataclass
from pathlib import Path

SIMULATION = "tests/test_simulation.py"


@dataclass(frozen=True, slots=True)
class Bug:
    """`old` stands exactly once in `file`, and `tests` are those to notice `new` in its place."""

    name: str
    file: str
    old: str
    new: str
    tests: str = SIMULATION

    def text(self, root: Path) -> str:
        """The file with the bug in it. Raises ValueError where the old text is not there."""
        text = (root / self.file).read_text()
        if text.count(self.old) != 1:
            times = text.count(self.old)
            raise ValueError(f"{self.name}: {self.old!r} is {times} times in {self.file}, not once")
        return text.replace(self.old, self.new)
