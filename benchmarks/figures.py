"""Timelines of answers -> figures: latencies in milliseconds, rates per second, token counts.

A figure that cannot be known (no usage from the server, nothing of that kind in the workload) is
left out, never guessed.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from benchmarks.client import Answer

Figures = dict[str, float]
FAULTS: Final = ("failed", "refused without Retry-After")


@dataclass(frozen=True, slots=True)
class Targets:
    """What makes an answer good, in seconds: first token, and p99 of its gaps between tokens."""

    ttft: float = 1.0
    gap: float = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of a workload; `own` are figures that only this workload has.

    `seconds` is None where the run was not one continuous load, so that rates mean nothing.
    """

    answers: list[Answer]
    seconds: float | None = None
    own: Figures = field(default_factory=dict)

    @property
    def gaps(self) -> list[float]:
        """The gaps of whole answers, in seconds; without those that only disturb the others."""
        streams = (a for a in self.answers if a.ok and a.role in ("", "stream"))
        return [gap for answer in streams for gap in answer.gaps]

    @property
    def error(self) -> str:
        """Why the first answer that failed did."""
        return next((a.error for a in self.answers if not a.ok and not a.refused), "")


@dataclass(slots=True)
class Result:
    """What a scenario showed, by server: the figures of each round, all gaps in seconds, and why
    answers failed.

    `clients` is how many asked at once, where that is what the scenario is about.
    """

    title: str
    clients: int | None = None
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    gaps: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def add(self, server: str, found: Figures, gaps: Iterable[float] = (), error: str = "") -> None:
        self.rounds.setdefault(server, []).append(found)
        self.gaps.setdefault(server, []).extend(gaps)
        if error:
            self.errors.setdefault(server, error)

    def medians(self, server: str) -> Figures:
        """Over the rounds that have the figure; of faults, the most in any round."""
        rounds = self.rounds.get(server, [])
        names = dict.fromkeys(name for found in rounds for name in found)
        return {name: _typical(name)(r[name] for r in rounds if name in r) for name in names}


def _typical(name: str) -> Callable[[Iterable[float]], float]:
    return max if name in FAULTS else statistics.median


def figures(outcome: Outcome, targets: Targets) -> Figures:
    """What one run showed; latencies separately for each role."""
    found = _totals(outcome, targets)
    for role in dict.fromkeys(answer.role for answer in outcome.answers):
        prefix = f"{role} " if role else ""
        answers = [a for a in outcome.answers if a.ok and a.role == role]
        found |= {prefix + name: value for name, value in _latencies(answers).items()}
    return found | outcome.own


def _totals(outcome: Outcome, targets: Targets) -> Figures:
    whole = [answer for answer in outcome.answers if answer.ok]
    refused = sum(answer.refused for answer in outcome.answers)
    found: Figures = {"failed": len(outcome.answers) - len(whole) - refused, "refused": refused}
    tokens = total(answer.tokens for answer in whole)
    if outcome.seconds and whole:
        if tokens is not None:
            found["output tok/s"] = tokens / outcome.seconds
        found["good answers/s"] = sum(_good(a, targets) for a in whole) / outcome.seconds
    prompt = total(answer.prompt_tokens for answer in whole)
    cached = total(answer.cached_tokens for answer in whole)
    if whole and prompt is not None and cached is not None:
        found |= {"prompt tokens computed": prompt - cached, "prompt tokens cached": cached}
    return found


def total(counts: Iterable[int | None]) -> int | None:
    """The sum; unknown if one of the counts is."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


def _good(answer: Answer, targets: Targets) -> bool:
    slowest = percentile(answer.gaps, 99) if answer.gaps else 0.0
    return bool(answer.chunks) and answer.ttft <= targets.ttft and slowest <= targets.gap


def _latencies(answers: list[Answer]) -> Figures:
    ttfts = [answer.ttft for answer in answers if answer.chunks]
    gaps = [gap for answer in answers for gap in answer.gaps]
    found = {"TTFT mean ms": 1e3 * sum(ttfts) / len(ttfts)} if ttfts else {}
    return found | _spread("TTFT", ttfts) | _spread("gap", gaps)


def _spread(name: str, seconds: list[float]) -> Figures:
    if not seconds:
        return {}
    found = {f"{name} p{share} ms": 1e3 * percentile(seconds, share) for share in (50, 90, 99)}
    return found | {f"{name} max ms": 1e3 * max(seconds)}


def percentile(values: list[float], share: float) -> float:
    """Between neighbours, linear interpolation."""
    return float(np.percentile(values, share))
