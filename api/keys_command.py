"""`onebox keys`: makes, lists and takes away API keys. A running server sees it at once."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from api import keys
from inference import load_config

app = typer.Typer(no_args_is_help=True, help="Make, list and take away API keys.")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A models.yaml that says where the keys are.")
]


@app.command("add")
def add_key(
    name: str,
    *,
    admin: Annotated[bool, typer.Option("--admin", help="May read /metrics as well.")] = False,
    per_minute: Annotated[int | None, typer.Option(min=1, max=keys.MOST)] = None,
    concurrent: Annotated[int, typer.Option(min=1, max=keys.MOST)] = keys.CONCURRENT,
    config_file: ConfigFile = None,
) -> None:
    """Make an API key and print it, once; the limits count requests."""
    path = _file(config_file)
    secret = keys.add(path, name, admin=admin, per_minute=per_minute, concurrent=concurrent)
    typer.echo(f"The key of {name}; it is stored nowhere, so keep it:", err=True)
    typer.echo(secret)


@app.command("list")
def list_keys(config_file: ConfigFile = None) -> None:
    """List who has a key, and what it may do."""
    table = Table("name", "scope", "at once", "in a minute")
    for key in keys.load(_file(config_file)):
        minute = "any number" if key.per_minute is None else str(key.per_minute)
        table.add_row(key.name, "admin" if key.admin else "infer", str(key.concurrent), minute)
    Console(markup=False, highlight=False).print(table)


@app.command("remove")
def remove_key(name: str, config_file: ConfigFile = None) -> None:
    """Take an API key away."""
    path = _file(config_file)
    keys.remove(path, name)
    typer.echo(f"The key of {name} is no longer valid.")
    if not keys.load(path):
        typer.echo("It was the last one: servers let nobody in until they are started again.")


def _file(config_file: Path | None) -> Path:
    return load_config(config_file).server.keys or keys.place()
