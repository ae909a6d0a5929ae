"""What commands show in the terminal: tables, and the greeting of a server that is ready."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inference import Check, Config, Deployment, Tuning, installed

_STATUS_STYLE: Final[Mapping[str, str]] = {"ok": "green", "warn": "yellow", "fail": "red"}

console = Console(markup=False, highlight=False)


def greeting(address: str, deployment: Deployment, *, keyed: bool) -> str:
    path, body = "chat/completions", '{"messages": [{"role": "user", "content": "Hello!"}]}'
    if deployment.header.pooling:
        path, body = "embeddings", '{"input": "Hello!"}'
    json_type = "Content-Type: application/json"
    headers = ["-H", json_type, *(["-H", "Authorization: Bearer YOUR_KEY"] if keyed else [])]
    curl = shlex.join(["curl", f"{address}/v1/{path}", *headers, "-d", body])
    page = f"Open {address}/ in a browser"
    page += ", and sign in there with an API key.\n" if keyed else ".\n"
    return f"Ready at {address} (OpenAI-compatible API under /v1). {page}Or try:\n\n  {curl}\n"


def show_plan(deployment: Deployment) -> None:
    table = Table(show_header=False, title=f"{deployment.model.name}: memory plan")
    for name, value in deployment.plan.rows():
        table.add_row(name, value)
    console.print(table)
    for reason in filter(None, (*deployment.plan.reasons, deployment.tuning)):
        console.print(f"- {reason}")
    typer.echo(f"Loading {deployment.model.name} ...")


def show_tuning(tuning: Tuning) -> None:
    table = Table(caption=tuning.legend, caption_justify="left")
    for number, column in enumerate(tuning.columns):
        table.add_column(column, justify="right" if number in range(4, 9) else "left")
    for row in tuning.rows:
        table.add_row(*tuning.cells(row), style="bold" if row is tuning.best else "")
    console.print(table)
    console.print(tuning.verdict)


def show_models(config: Config) -> None:
    table = Table("name", "aliases", "quants", "installed", "default")
    for name, entry in config.models.items():
        aliases = [alias for alias in entry.aliases if alias != "default"]
        default = "yes" if len(aliases) < len(entry.aliases) else ""
        here = [quant for quant in entry.quants if installed(config.find(f"{name}:{quant}").source)]
        if not entry.quants and installed(config.find(name).source):
            here = ["yes"]
        columns = (", ".join(names) for names in (aliases, entry.quants, here or ["no"]))
        table.add_row(name, *columns, default)
    console.print(table)


def show_checks(checks: Sequence[Check]) -> None:
    table = Table("check", "status", "found", "advice")
    for check in checks:
        status = Text(check.status, _STATUS_STYLE[check.status])
        table.add_row(check.name, status, check.found, check.advice)
    console.print(table)
