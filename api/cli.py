"""The command line: parses, prints, shows progress. What it starts lives elsewhere.

Everything that can go wrong for a reason ends in one sentence on stderr and an exit status of
sysexits.h, never in a traceback.
"""

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import typer.core
from anyio.from_thread import start_blocking_portal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from api import __version__, keys_command, terminal_chat
from api.app import create_app
from api.keys import KeyFile, place
from api.origins import Reach, is_open_door, reach_of, refuse_open_door
from api.server import AddressTaken, Server, bind, server_for
from api.store.database import opened
from api.terminal import console, greeting, show_checks, show_models, show_plan, show_tuning
from inference import (
    BadModelFile,
    Config,
    ConfigError,
    DownloadError,
    HubFile,
    InferenceError,
    Models,
    NotReady,
    Pool,
    UnknownModel,
    Wishes,
    examine,
    load_config,
    prepare,
    pull,
    tune,
)

_EXIT: Final[Mapping[type[InferenceError], int]] = {
    BadModelFile: 66,
    UnknownModel: 66,
    AddressTaken: 69,
    DownloadError: 69,
    terminal_chat.ServerError: 69,
    ConfigError: 78,
}
_DOWNLOAD: Final = (
    TextColumn("{task.description}"),
    BarColumn(),
    DownloadColumn(),
    TransferSpeedColumn(),
    TimeRemainingColumn(),
)
_TUNING: Final = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())


class Cli(typer.core.TyperGroup):
    """Ends a command that failed for a known reason with one sentence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InferenceError as error:
            typer.echo(error.message, err=True)
            raise typer.Exit(_EXIT.get(type(error), 1)) from None


app = typer.Typer(cls=Cli, pretty_exceptions_enable=False, no_args_is_help=True)
app.add_typer(keys_command.app, name="keys")

Model = Annotated[str | None, typer.Argument(help="A name of models.yaml or a path to a GGUF.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A models.yaml instead of the packaged one.")
]

Slots = Annotated[int | None, typer.Option(min=1, help="Requests at the same time.")]
Context = Annotated[int | None, typer.Option(min=1, help="Tokens over all slots.")]
Threads = Annotated[int | None, typer.Option(min=1)]
GpuLayers = Annotated[int | None, typer.Option(min=-1, help="-1 means all.")]
KvType = Annotated[str | None, typer.Option(help="f16 or q8_0.")]
Draft = Annotated[
    str | None, typer.Option(help="A small model that guesses what this one says; same vocabulary.")
]
KvLayout = Annotated[str | None, typer.Option(help="streams or unified.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onebox {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Onebox: one box, one command, many people talking to its models at once."""


@app.command()
def serve(  # noqa: PLR0913 - typer wants one parameter per option
    model: Model = None,
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    slots: Slots = None,
    context: Context = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    kv_type: KvType = None,
    kv_layout: KvLayout = None,
    draft: Draft = None,
    tuned: Annotated[bool, typer.Option(help="Use what `onebox tune` found.")] = True,
    queue: Annotated[int | None, typer.Option(min=0, help="Requests that may wait.")] = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Let the whole network in without a key.")
    ] = False,
    config_file: ConfigFile = None,
) -> None:
    """Serve a model over an OpenAI-compatible API."""
    _end_when_told()
    config = load_config(config_file)
    host = host or config.server.host
    port = config.server.port if port is None else port
    warn = partial(typer.echo, err=True)
    with bind(host, port) as listener, opened(config.server.database, warn) as database:
        reach, keys = _admission(config, host, listener, insecure_no_auth)
        wishes = Wishes(
            context=context,
            slots=slots,
            kv_type=kv_type,
            gpu_layers=gpu_layers,
            kv_layout=kv_layout,
            draft=draft,
        )
        plan = partial(prepare, config, model, wishes, threads, tuned=tuned)
        deployment = plan()
        show_plan(deployment)
        queue = config.server.queue if queue is None else queue
        models = Models(Pool(deployment, queue=queue), config, plan, tuned=tuned, queue=queue)
        ready = greeting(_address(host, listener), deployment, keyed=keys.required())
        server = server_for(create_app(models, reach, keys, database), config.server.drain_seconds)
        asyncio.run(_serve(models, server, listener, ready))


@app.command("tune")
def tune_model(  # noqa: PLR0913 - typer wants one parameter per option
    model: Model = None,
    *,
    slots: Slots = None,
    context: Context = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    kv_type: KvType = None,
    kv_layout: KvLayout = None,
    draft: Draft = None,
    budget: Annotated[int, typer.Option(min=1, help="Seconds, once the model is loaded.")] = 50,
    config_file: ConfigFile = None,
) -> None:
    """Measure which settings are fastest here; `serve` with the same options uses them."""
    wishes = Wishes(
        context=context,
        slots=slots,
        kv_type=kv_type,
        gpu_layers=gpu_layers,
        kv_layout=kv_layout,
        draft=draft,
    )
    deployment = prepare(load_config(config_file), model, wishes, threads, tuned=False)
    with Progress(*_TUNING, console=console) as progress:
        task = progress.add_task("loading the model", total=budget)

        def watch(what: str, left: float) -> None:
            progress.update(task, description=what, completed=budget - left)

        tuning = tune(deployment, budget, watch)
        watch("done", 0)
    show_tuning(tuning)
    path = tuning.remember()
    typer.echo(f"Stored in {path}; `onebox serve` with the same options uses it.")


@app.command()
def chat(
    model: Model = None,
    url: Annotated[str | None, typer.Option(help="Ask this running server instead.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Talk to a model in the terminal."""
    if url and model:
        raise typer.BadParameter("Give a MODEL or --url, not both.")
    with start_blocking_portal() as portal:
        if url:
            ask = partial(terminal_chat.ask_server, url.rstrip("/").removesuffix("/v1"))
            terminal_chat.converse(ask, portal, console)
        else:
            pool = Pool(prepare(load_config(config_file), model))
            with portal.wrap_async_context_manager(terminal_chat.running(pool)):
                terminal_chat.converse(partial(terminal_chat.ask_pool, pool), portal, console)


@app.command("pull")
def pull_model(name: str, config_file: ConfigFile = None) -> None:
    """Download a model's weights and verify them."""
    source = load_config(config_file).find(name).source
    with Progress(*_DOWNLOAD, disable=not isinstance(source, HubFile)) as progress:
        task = progress.add_task(name, total=None)
        pull(source, lambda done, size: progress.update(task, completed=done, total=size))
    typer.echo(f"{name} is installed.")


@app.command()
def models(config_file: ConfigFile = None) -> None:
    """List the models that can be served by name."""
    show_models(load_config(config_file))


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench(ctx: typer.Context) -> None:
    """Measure running servers; `onebox bench --help` lists workloads and options."""
    from benchmarks import serve  # noqa: PLC0415  (a tool with a command line of its own)

    tool = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    tool.command()(serve.main)
    tool(ctx.args, prog_name="onebox bench", standalone_mode=False)


@app.command()
def doctor() -> None:
    """Check this machine and say what to do."""
    checks = examine()
    show_checks(checks)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


def _end_when_told() -> None:
    """Before and after the server listens to signals itself: to be told to stop is no failure."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: sys.exit(0))


def _admission(
    config: Config, host: str, listener: socket.socket, insecure: bool
) -> tuple[Reach, KeyFile]:
    """Who may come in. Raises ConfigError if that is everybody and nobody said so."""
    address = listener.getsockname()[0]
    keys = KeyFile(config.server.keys or place())
    if not insecure:
        refuse_open_door(host, address, keys)
    elif is_open_door(address, keys):
        typer.echo(f"Warning: whoever reaches {host} can use this server, without a key.", err=True)
    return reach_of(config, host, address), keys


async def _serve(models: Models, server: Server, listener: socket.socket, ready: str) -> None:
    """Serve until a signal ends it. Raises `NotReady` if the model cannot be loaded."""
    for package in ("api", "inference"):  # for the operator's log: stderr has what is wrong
        logging.getLogger(package).setLevel(logging.INFO)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await models.until_ready()
        gc.collect()
        gc.freeze()  # what is there by now stays: to walk it takes 50 ms, and all streams wait
        typer.echo(ready)
    except NotReady:
        if not server.stopping:
            server.stop()
            raise
    finally:
        await serving


def _address(host: str, listener: socket.socket) -> str:
    """The URL under which this machine reaches the listener."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
