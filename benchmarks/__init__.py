"""Measuring tools; nothing here is part of the server."""

from collections.abc import Callable
from typing import Any

import typer

from inference import InferenceError


class BenchmarkError(InferenceError):
    """What was to be measured cannot be; the message says why and what to do."""

    code = "benchmark_failed"


def run(command: Callable[..., Any]) -> None:
    """Run a tool's command line; what fails for a known reason ends in one sentence."""
    try:
        typer.run(command)
    except InferenceError as error:
        raise SystemExit(error.message) from None
