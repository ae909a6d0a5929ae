"""What Onebox has to reach, and whether it did: one row per bar.

A bar is on a figure's ratio to the peer (the second server measured), or on the figure itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import Result

HEAD: Final = ("workload", "figure", "Onebox", "peer", "ratio", "bar", "met?")


@dataclass(frozen=True, slots=True)
class Bar:
    """`figure` of the scenario, or its ratio to the peer, has to be >= or <= `limit`."""

    scenario: str
    figure: str
    sign: str
    limit: float
    ratio: bool = True

    def met(self, value: float) -> bool:
        return value >= self.limit if self.sign == ">=" else value <= self.limit


BARS: Final = (
    Bar("steady n=1", "output tok/s", ">=", 1.0),
    Bar("steady n=1", "TTFT p50 ms", "<=", 0.8),
    Bar("steady n=8", "output tok/s", ">=", 1.2),
    Bar("steady n=32", "output tok/s", ">=", 1.2),
    Bar("mixed", "stream gap p99 ms", "<=", 0.15),
    Bar("mixed", "stream gap max ms", "<=", 0.15),
    Bar("mixed", "new TTFT mean ms", "<=", 1.3),
    Bar("chat", "TTFT p90 ms", "<=", 0.35),
    Bar("chat", "prompt tokens computed / minimum", "<=", 1.15, ratio=False),
    Bar("cancel", "TTFT after / idle", "<=", 1.1, ratio=False),
    Bar("overload", "refusal max ms", "<=", 50, ratio=False),
    Bar("overload", "refused without Retry-After", "<=", 0, ratio=False),
    Bar("overload", "failed", "<=", 0, ratio=False),
    Bar("growing n=8", "failed", "<=", 0, ratio=False),
    Bar("repeat", "speculation gain", ">=", 1.6, ratio=False),
    Bar("novel", "speculation gain", ">=", 0.97, ratio=False),
    Bar("steady n=8, busy box", "output tok/s", ">=", 3.0),
    Bar("steady n=8, busy box", "gap p99 ms", "<=", 0.33),
    Bar("engine B=1", "decode tok/s", ">=", 0.97),
    Bar("engine B=1", "tok/s", ">=", 0.97),
    Bar("engine B=8", "decode tok/s", ">=", 0.97),
    Bar("engine B=8", "tok/s", ">=", 0.97),
    Bar("engine B=32", "decode tok/s", ">=", 0.97),
    Bar("engine B=32", "tok/s", ">=", 0.97),
    Bar("limits", "API CPU per token us", "<=", 70, ratio=False),
)


def judge(results: Iterable[Result]) -> list[tuple[str, ...]]:
    """A row, as `HEAD` names it, for every bar whose scenario was measured; none is met by a
    server whose answers failed."""
    measured = {result.title: result for result in results}
    return [_row(bar, measured[bar.scenario]) for bar in BARS if bar.scenario in measured]


def _row(bar: Bar, result: Result) -> tuple[str, ...]:
    found = [result.medians(server) for server in result.rounds]
    ours, peer = [*(medians.get(bar.figure) for medians in found), None, None][:2]
    compared = ratio(ours, peer) if bar.ratio else None
    value = compared if bar.ratio else ours
    whole = not (found and found[0].get("failed"))
    met = "not measured" if value is None else "yes" if whole and bar.met(value) else "no"
    limit = f"{bar.sign} {shown(bar.limit)}{'x' if bar.ratio else ''}"
    return (bar.scenario, bar.figure, shown(ours), shown(peer), shown(compared), limit, met)


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Unknown where either is, or where there is nothing to compare with."""
    return ours / theirs if ours is not None and theirs else None


def shown(value: float | None) -> str:
    """Three digits are enough."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
