"""Results as Markdown tables, as JSON and as plots.

Tables hold medians over the rounds, and ratios of the first server to each other one; a terminal
is shown the same ones as a file. Knows nothing of how anything was measured.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from benchmarks import bars
from benchmarks.bars import ratio, shown
from benchmarks.figures import Result

_NO_PLOTS: Final = "There are no plots: they need matplotlib, which `make bench` installs.\n"


@dataclass(frozen=True, slots=True)
class Report:
    """All that is written down: `about` names the machine, versions, servers and settings.

    `judged` adds the bars that Onebox has to reach; the first server is Onebox then.
    """

    about: dict[str, str]
    results: list[Result]
    judged: bool = True

    @property
    def tables(self) -> str:
        """A table for every scenario, and the bars that were measured."""
        parts = [_scenario(result) for result in self.results]
        if rows := self._bars():
            parts.append("## Bars\n\n" + table(bars.HEAD, rows))
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Leave report.json, report.md and, where matplotlib is installed, plots in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        about = table(("", ""), self.about.items())
        text = f"# Benchmark\n\n{about}\n\n{self.tables}\n{self._plots(folder)}"
        (folder / "report.md").write_text(text)
        (folder / "report.json").write_text(json.dumps(self._as_json(), indent=2))

    def _bars(self) -> list[tuple[str, ...]]:
        return bars.judge(self.results) if self.judged else []

    def _plots(self, folder: Path) -> str:
        if not find_spec("matplotlib"):
            return _NO_PLOTS
        from benchmarks.plots import draw  # noqa: PLC0415  (matplotlib is an extra)

        return "".join(f"![{name}]({name})\n" for name in draw(self.results, folder))

    def _as_json(self) -> dict[str, object]:
        scenarios = {
            result.title: {
                server: {
                    "medians": result.medians(server),
                    "rounds": rounds,
                    "failure": result.errors.get(server, ""),
                }
                for server, rounds in result.rounds.items()
            }
            for result in self.results
        }
        judged = [dict(zip(bars.HEAD, row, strict=True)) for row in self._bars()]
        return {"about": self.about, "scenarios": scenarios, "bars": judged}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _scenario(result: Result) -> str:
    medians = {server: result.medians(server) for server in result.rounds}
    first, *others = medians
    head = ["median", *medians, *(f"{first} / {other}" for other in others)]
    rows = []
    for name in dict.fromkeys(name for found in medians.values() for name in found):
        values = [found.get(name) for found in medians.values()]
        ratios = [ratio(values[0], value) for value in values[1:]]
        rows.append([name, *map(shown, values), *map(shown, ratios)])
    failures = "".join(f"\n\nFailed on {name}: {why}" for name, why in result.errors.items())
    return f"## {result.title}\n\n{table(head, rows)}{failures}"
