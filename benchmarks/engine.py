"""Our step loop, in this process and without a server, against llama.cpp's `llama-batched-bench`.

The same shapes: B prompts at once, then as many decode steps for all of them. Ours schedules and
samples (greedy), theirs feeds random tokens; the model file, threads, context, batch sizes and
KV layout are the same. One runs while the other waits, round by round.
"""

import json
import os
import random
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from benchmarks import BenchmarkError, llama_server, run
from benchmarks.figures import Figures, Result
from benchmarks.machine import describe
from benchmarks.report import Report
from inference import Wishes, load_config, prepare
from inference.sequence import SamplingParams, Sequence
from inference.wire import EngineConfig
from inference.worker import load

PROMPT, ANSWER = 128, 48  # tokens; the answer's are decode steps
_CELLS: Final = 256  # for each sequence
BATCHES: Final = (1, 8, 32)
_PATIENT: Final = 60_000.0  # milliseconds a step may take
_GREEDY: Final = SamplingParams(temperature=0)
# llama.py sets them for a worker; llama.cpp's own tool shall run as it comes.
_OURS: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def main(
    model: Annotated[str, typer.Argument(help="A name of models.yaml or a path to a GGUF.")],
    folder: Annotated[Path, typer.Argument(help="Of benchmarks.llama_server, built if needed.")],
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="A folder for the report.")] = None,
) -> None:
    """Compare our step loop with llama-batched-bench."""
    tool = llama_server.built(folder) / "llama-batched-bench"
    results = [measure(_config(model, size, threads), tool, rounds) for size in BATCHES]
    report = Report(describe(), results)
    Console().print(Markdown(report.tables))
    if out:
        report.write(out)


def measure(config: EngineConfig, tool: Path, rounds: int) -> Result:
    """Both sides in turn, with as many sequences as the engine has slots."""
    result = Result(f"engine B={config.slots}")
    for number in track(range(rounds), result.title):
        result.add("onebox", ours(config, random.Random(number)))
        result.add("llama-batched-bench", theirs(config, tool))
    return result


def ours(config: EngineConfig, rng: random.Random) -> Figures:
    """A fresh engine, all prompts at once, to the end. Only decode steps that hold every sequence
    count as such."""
    llama, engine, scheduler = load(config)
    with closing(llama):
        ids = range(256, llama.n_vocab - 300)
        scheduler.add([_sequence(id, rng.choices(ids, k=PROMPT)) for id in range(config.slots)])
        decode_steps, decoding = 0, 0.0
        start = now = time.monotonic()
        while not scheduler.idle:
            began = now
            plan = scheduler.plan(began)
            result = engine.step(plan)
            now = time.monotonic()
            scheduler.commit(plan, result, now)
            if not plan.prefills and len(plan.decodes) == config.slots:
                decode_steps += 1
                decoding += now - began
    return {
        "decode tok/s": config.slots * decode_steps / decoding,
        "tok/s": config.slots * (PROMPT + ANSWER) / (now - start),
    }


def _sequence(id: int, tokens: list[int]) -> Sequence:
    limit = PROMPT + ANSWER + 1  # the first token of an answer takes no decode step
    return Sequence(id=id, tokens=tokens, limit=limit, sampling=_GREEDY, ignore_eos=True)


def theirs(config: EngineConfig, tool: Path) -> Figures:
    """One run of llama-batched-bench with the engine's settings."""
    options = {
        "-m": config.path,
        "-c": config.context,
        "-t": config.threads,
        "-b": max(2048, config.batch),
        "-ub": config.batch,
        "-fa": {None: "auto", True: "on", False: "off"}[config.flash_attention],
        "-ctk": config.kv_type,
        "-ctv": config.kv_type,
        "-ngl": config.gpu_layers,
        "-npp": PROMPT,
        "-ntg": ANSWER,
        "-npl": f"{config.slots},1",  # it may lose the last line that it writes
        "--output-format": "jsonl",
    }
    command = [str(tool), *(str(part) for pair in options.items() for part in pair)]
    command.append("-kvu" if config.unified else "-no-kvu")
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    first = next((line for line in ran.stdout.splitlines() if line.startswith("{")), None)
    if first is None:
        raise BenchmarkError(f"{tool} measured nothing: {ran.stderr[-300:].strip()}")
    found = json.loads(first)
    return {"decode tok/s": found["speed_tg"], "tok/s": found["speed"]}


def _config(model: str, batch: int, threads: int | None) -> EngineConfig:
    """As served, but without guessing, for random weights repeat themselves, and with prompts as
    fast as they go, for llama-batched-bench computes them before anything else."""
    wishes = Wishes(context=batch * _CELLS, slots=batch)
    engine = prepare(load_config(), model, wishes, threads, tuned=False).engine
    return msgspec.structs.replace(engine, drafts=0, itl_target_ms=_PATIENT)


if __name__ == "__main__":
    run(main)
