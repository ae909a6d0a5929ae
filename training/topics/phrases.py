"""The tables of wordings, kept as text: `[name]` or `[name zh]`, then one phrase per line."""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "phrases"


@cache
def sections() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in sorted(FOLDER.glob("*.txt")):
        for block in file.read_text(encoding="utf-8").strip().split("\n\n"):
            header, *lines = block.split("\n")
            if found.setdefault(header, lines) is not lines:
                raise ValueError(f"{header} stands twice, the second time in {file.name}")
    return found


def phrases(name: str, zh: bool = False) -> list[str]:
    return sections()[f"[{name} zh]" if zh else f"[{name}]"]


def table(name: str) -> list[tuple[str, ...]]:
    """A section whose lines are columns between bars."""
    return [tuple(line.split(" | ")) for line in phrases(name)]


def pairs(name: str) -> dict[str, str]:
    """A section of English words and their Chinese ones."""
    return dict(line.split(" = ") for line in phrases(name))
