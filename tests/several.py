"""Several models that are all the bundled one, on a box with room for as many as a test likes."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from inference import (
    Finished,
    GenerationRequest,
    Message,
    Models,
    Pool,
    Sampling,
    TextDelta,
    deployment,
    load_config,
    prepare,
)
from inference.memory import Memory
from tests.fake_pool import serving

DEMO = Path(deployment.__file__).parent / "demo" / "qwen3-demo.gguf"
CONFIG = """
server: {{keep_alive: {keep_alive}, max_models: {max_models}}}
defaults: {{context: 2048, slots: 2, thinking: false, sampling: {{plain: {{temperature: 0}}}}}}
models:
  a: {{path: {demo}, aliases: [default, first]}}
  b: {{path: {demo}, aliases: ["bee:1b"]}}
  c: {{path: {demo}, stream: required}}
  broken: {{path: broken.gguf}}
  gone: {{path: nothing.gguf}}
  embedder: {{path: embedder.gguf}}
  far:
    aliases: ["far:8b"]
    hub: {{repo: org/weights-GGUF, quant: Q8_0, files: {{Q8_0: weights-Q8_0.gguf, Q4_0: q4.gguf}}}}
"""


class Box:
    """`models` of which `room` find memory at a time: workers that live count, and nothing else."""

    def __init__(self, folder: Path, keep_alive: int, max_models: int | str, threads: bool) -> None:
        self.room = 100
        self.plans = 0
        path = folder / "models.yaml"
        path.write_text(CONFIG.format(demo=DEMO, keep_alive=keep_alive, max_models=max_models))
        (folder / "broken.gguf").write_bytes(DEMO.read_bytes()[:5000])
        config = load_config(path)
        plan = partial(prepare, config, "a", tuned=False)
        first = Pool(plan(), in_process=threads)
        self.models = Models(first, config, plan, tuned=False, queue=4, in_process=threads)

    def memory(self) -> Memory:
        self.plans += 1
        return Memory(64 << 30, (8 << 30) if workers() < self.room else 0)


def workers() -> int:
    """How many workers of this process live, be they processes or threads."""
    threads = sum(thread.name.endswith("(serve)") for thread in threading.enumerate())
    return threads + sum(map(_is_worker, psutil.Process().children()))


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "inference.worker" in process.cmdline()
    except psutil.Error:  # it is gone, or will be once somebody has asked how it ended
        return False


@contextmanager
def a_box(
    folder: Path,
    *,
    keep_alive: int = 300,
    max_models: int | str = "auto",
    room: int = 100,
    threads: bool = True,
) -> Iterator[Box]:
    """Workers are threads, which are there sooner, or processes."""
    with pytest.MonkeyPatch.context() as patch:
        box = Box(folder, keep_alive, max_models, threads)
        patch.setattr(deployment, "read_memory", box.memory)
        box.room = room
        yield box


@asynccontextmanager
async def several(folder: Path, **how) -> AsyncIterator[Box]:
    """A box whose model `a` is loaded."""
    with a_box(folder, **how) as box:
        await box.models.start()
        try:
            await box.models.until_ready()
            yield box
        finally:
            await box.models.close()
    assert not workers()


@asynccontextmanager
async def several_served(folder: Path, **how) -> AsyncIterator[tuple[Box, str]]:
    """The same behind a real server, and its address."""
    serve = {name: how.pop(name) for name in ("keys",) if name in how}
    with a_box(folder, **how) as box:
        async with serving(box.models, **serve) as url:
            await box.models.until_ready()
            yield box, url
    async with asyncio.timeout(10):  # for a thread that is slow to end
        while workers():
            await asyncio.sleep(0.005)


def ask(model: str | None, text: str = "What is the capital of France?", **fields):
    """A request for a short answer."""
    messages = (Message("user", text),)
    fields = {"max_tokens": 20, "sampling": Sampling(temperature=0)} | fields
    return GenerationRequest(id="t", model=model, messages=messages, **fields)


async def answer_of(models: Models, request: GenerationRequest) -> tuple[str, Finished]:
    events = [event async for event in models.generate(request)]
    return "".join(e.text for e in events if isinstance(e, TextDelta)), events[-1]
