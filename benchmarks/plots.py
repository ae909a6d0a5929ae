"""Results as pictures: how gaps between tokens are distributed, and the first token over load.

The one module that needs matplotlib.
"""

import re
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import Result

_OVER_LOAD = "ttft-over-load.png"


def draw(results: list[Result], folder: Path) -> list[str]:
    """Write every plot there is something for; the names of the files in `folder`."""
    names = []
    for result in results:
        if any(result.gaps.values()):
            names.append(f"gaps-{re.sub(r'[^a-z0-9]+', '-', result.title.lower())}.png")
            figure, axes = _axes(result.title, "gap between tokens, ms", "share of gaps below")
            _gaps(axes, result)
            _save(figure, axes, folder / names[-1])
    loads = sorted((r for r in results if r.clients), key=lambda result: result.clients or 0)
    if len(loads) > 1:
        names.append(_OVER_LOAD)
        figure, axes = _axes("first token over load", "clients at once", "TTFT, ms")
        _ttft(axes, loads)
        _save(figure, axes, folder / _OVER_LOAD)
    return names


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    axes.legend()
    figure.savefig(path, dpi=120)


def _gaps(axes: Axes, result: Result) -> None:
    for server, gaps in result.gaps.items():
        if gaps:
            axes.step(1e3 * np.sort(gaps), np.arange(1, len(gaps) + 1) / len(gaps), label=server)
    axes.set_xscale("log")


def _ttft(axes: Axes, loads: list[Result]) -> None:
    clients = [result.clients or 0 for result in loads]
    for server in loads[0].rounds:
        for name, style in (("TTFT p50 ms", "-"), ("TTFT p90 ms", ":")):
            times = [result.medians(server).get(name, np.nan) for result in loads]
            axes.plot(clients, times, style, marker="o", label=f"{server}, {name[5:8]}")
