"""Brings damaged copies of the bundled model through the whole load, as `onebox serve` does.

A copy is looked at, planned for, loaded by a real worker and, if that succeeds, asked a question;
this process stands for the server, and is the same for all of them. Every copy has to be refused
with one sentence, or be served. Only one copy at a time is on the disk.

    python -m benchmarks.mutants --count 1000
"""

import asyncio
import random
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import psutil
import typer
from gguf import GGUFReader, GGUFValueType
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import run
from inference import (
    GenerationRequest,
    InferenceError,
    Message,
    Pool,
    Wishes,
    load_config,
    prepare,
)

MODEL: Final = Path(__file__).parents[1] / "inference" / "demo" / "qwen3-demo.gguf"
REFUSED, REFUSED_BY_WORKER, WORKER_DIED, LOADED, QUESTION_REFUSED, NO_SENTENCE, HUNG = OUTCOMES = (
    "refused by the look", "refused by its worker", "its worker died", "answers",
    "loaded, but refuses", "no sentence", "hung",
)  # fmt: skip
_DEATH: Final = "worker (was ended|ended with|hung)|process that runs the model"
_WISHES: Final = Wishes(context=256, slots=2)
_PATIENCE: Final = 60.0  # seconds
_LONGEST_SENTENCE: Final = 1000  # characters
_NUMBERS: Final = (0, 1, 2, 3, 7, 255, 1 << 15, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 40,
                   1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
_TEMPLATES: Final = (
    "",
    "{% for %}",
    "{{ raise_exception('no') }}",
    "{{ ''.__class__.__mro__ }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 10 ** (10 ** 9) }}",
    "{{ 'a' * 10 ** 10 }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ messages[0].content * 10 ** 6 }}",
    "{{ '\\ud800' }}",
    "(" * 100_000,
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ messages[-1].content }}\0\x1b[31m",
)


@dataclass(frozen=True)
class Model:
    """A sound model in pieces."""

    start: bytes
    entries: tuple[bytes, ...]
    tensors: tuple[bytes, ...]
    data: bytes

    def bytes(self) -> bytes:
        header = b"".join([self.start, *self.entries, *self.tensors])
        return header + bytes(-len(header) % 32) + self.data

    def edges(self) -> Iterator[int]:
        """Where a piece ends."""
        place = len(self.start)
        for piece in (*self.entries, *self.tensors):
            yield place
            place += len(piece)
        yield place


def dissect(path: Path) -> Model:
    whole, reader = path.read_bytes(), GGUFReader(path)
    edges = [field.offset for name, field in reader.fields.items() if "GGUF." not in name]
    infos = [tensor.field.offset for tensor in reader.tensors]
    end = infos[-1] + sum(part.nbytes for part in reader.tensors[-1].field.parts)
    return Model(
        start=whole[: edges[0]],
        entries=tuple(_pieces(whole, [*edges, infos[0]])),
        tensors=tuple(_pieces(whole, [*infos, end])),
        data=whole[reader.data_offset :],
    )


def _pieces(whole: bytes, edges: list[int]) -> Iterator[bytes]:
    for begin, end in pairwise(edges):
        yield whole[begin:end]


def _hurt(chance: random.Random, piece: bytes) -> bytes:
    """Some bits turned over, or a number written over some bytes."""
    hurt = bytearray(piece)
    if chance.random() < 0.5:
        for _ in range(chance.choice((1, 1, 2, 8))):
            hurt[chance.randrange(len(hurt))] ^= 1 << chance.randrange(8)
        return bytes(hurt)
    width = chance.choice((1, 4, 8))
    place = chance.randrange(max(1, len(hurt) - width))
    return bytes(hurt[:place]) + _number(chance, width) + bytes(hurt[place + width :])


def _number(chance: random.Random, width: int) -> bytes:
    return struct.pack("<Q", chance.choice(_NUMBERS))[:width]


def _hurt_one(chance: random.Random, pieces: tuple[bytes, ...]) -> tuple[bytes, ...]:
    place = chance.randrange(len(pieces))
    return (*pieces[:place], _hurt(chance, pieces[place]), *pieces[place + 1 :])


def _counted(model: Model, entries: tuple[bytes, ...]) -> bytes:
    """The model with other metadata, and the right number of it."""
    start = model.start[:16] + struct.pack("<Q", len(entries))
    return Model(start, entries, model.tensors, model.data).bytes()


def _key(entry: bytes) -> str:
    return entry[8 : 8 + struct.unpack_from("<Q", entry)[0]].decode()


def _is_long(entry: bytes) -> bool:
    return len(entry) > 10_000  # of the vocabulary


def truncated(chance: random.Random, model: Model) -> bytes:
    whole = model.bytes()
    if chance.random() < 0.3:
        return whole[: chance.randrange(len(whole))]
    return whole[: max(0, chance.choice(list(model.edges())) + chance.randint(-4, 4))]


def counts(chance: random.Random, model: Model) -> bytes:
    return _hurt(chance, model.start) + model.bytes()[len(model.start) :]


def metadata(chance: random.Random, model: Model) -> bytes:
    place = chance.choice([n for n, entry in enumerate(model.entries) if not _is_long(entry)])
    hurt = _hurt(chance, model.entries[place])
    return _counted(model, (*model.entries[:place], hurt, *model.entries[place + 1 :]))


def values(chance: random.Random, model: Model) -> bytes:
    """One number of the metadata is another one, in a file that is sound otherwise."""
    numbers = (GGUFValueType.UINT32, GGUFValueType.FLOAT32)
    places = [
        n
        for n, entry in enumerate(model.entries)
        if struct.unpack_from("<I", entry, 8 + len(_key(entry)))[0] in numbers
    ]
    place = chance.choice(places)
    hurt = model.entries[place][:-4] + _number(chance, 4)
    return _counted(model, (*model.entries[:place], hurt, *model.entries[place + 1 :]))


def entries(chance: random.Random, model: Model) -> bytes:
    """An entry is missing, is there twice, or has the value of another one."""
    kept = list(model.entries)
    place, other = chance.sample(range(len(kept)), 2)
    match chance.randrange(3):
        case 0:
            del kept[place]
        case 1:
            kept.insert(other, kept[place])
        case _:
            kept[place] = _renamed(kept[other], _key(kept[place]))
    return _counted(model, tuple(kept))


def _renamed(entry: bytes, key: str) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + entry[8 + len(_key(entry)) :]


def vocabulary(chance: random.Random, model: Model) -> bytes:
    place = chance.choice([n for n, entry in enumerate(model.entries) if _is_long(entry)])
    hurt = _hurt(chance, model.entries[place])
    return _counted(model, (*model.entries[:place], hurt, *model.entries[place + 1 :]))


def templates(chance: random.Random, model: Model) -> bytes:
    return with_template(model, chance.choice(_TEMPLATES))


def with_template(model: Model, source: str) -> bytes:
    """A sound model with another chat template."""
    key, text = "tokenizer.chat_template", source.encode()
    entry = struct.pack("<Q", len(key)) + key.encode()
    entry += struct.pack("<IQ", GGUFValueType.STRING, len(text)) + text
    return _counted(model, (*(e for e in model.entries if _key(e) != key), entry))


def tensors(chance: random.Random, model: Model) -> bytes:
    infos = _hurt_one(chance, model.tensors)
    return Model(model.start, model.entries, infos, model.data).bytes()


def weights(chance: random.Random, model: Model) -> bytes:
    data = bytearray(model.data)
    length = chance.choice((1, 64, 1 << 16))
    place = chance.randrange(len(data) - length)
    data[place : place + length] = bytes([chance.choice((0x00, 0x7F, 0xFF))]) * length
    return Model(model.start, model.entries, model.tensors, bytes(data)).bytes()


Kind = Callable[[random.Random, Model], bytes]
KINDS: Final[dict[Kind, int]] = {
    truncated: 15, counts: 10, metadata: 15, values: 15, entries: 10, vocabulary: 15,
    templates: 5, tensors: 10, weights: 5,
}  # fmt: skip


async def outcome(path: Path) -> tuple[str, str]:
    """What becomes of the copy at `path`, and what was said."""
    try:
        deployment = prepare(load_config(), str(path), _WISHES, tuned=False)
    except InferenceError as error:
        return _judged(REFUSED, error.message)
    pool = Pool(deployment)
    try:
        async with asyncio.timeout(_PATIENCE):
            await pool.start()
            await pool.until_ready()
            return await _asked(pool)
    except InferenceError as error:
        return _judged(REFUSED_BY_WORKER, error.message)
    except TimeoutError:
        return HUNG, ""
    finally:
        await pool.close()


async def _asked(pool: Pool) -> tuple[str, str]:
    """Ask a question, to which any answer will do: nobody can see that its weights are nonsense."""
    request = GenerationRequest(id="1", messages=(Message("user", "Hello!"),), max_tokens=8)
    try:
        async with aclosing(pool.generate(request)) as events:
            return LOADED, str([event async for event in events][-1])
    except InferenceError as error:
        return _judged(QUESTION_REFUSED, error.message)


def _judged(where: str, message: str) -> tuple[str, str]:
    one = message.isprintable() and message.strip() and len(message) <= _LONGEST_SENTENCE
    if not one or "Traceback" in message:
        return NO_SENTENCE, message
    return (WORKER_DIED if re.search(_DEATH, message) else where), message


def bring(kind: Kind, name: str, model: Model) -> tuple[str, str]:
    """Make the copy `name` of a model and see what becomes of it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.gguf"
        path.write_bytes(kind(random.Random(name), model))
        try:
            end, said = asyncio.run(outcome(path))
        except Exception as error:  # a server would have died of it
            end, said = NO_SENTENCE, repr(error)
    return end, said


def main(
    count: Annotated[int, typer.Option(min=1)] = 1000,
    seed: int = 0,
    only: Annotated[int | None, typer.Option(help="Just this one, and what it says.")] = None,
) -> None:
    """Load many damaged copies of the bundled model; none may do more harm than a sentence."""
    model, console = dissect(MODEL), Console()
    kinds = random.Random(seed).choices(list(KINDS), list(KINDS.values()), k=count)
    numbers = range(count) if only is None else [only]
    found: Counter[tuple[str, str]] = Counter()
    for number in track(numbers, "mutants", console=console):
        kind = kinds[number]
        end, said = bring(kind, f"{seed}:{number}", model)
        found[kind.__name__, end] += 1
        if end in (WORKER_DIED, NO_SENTENCE, HUNG) or only is not None:
            console.print(f"{number}, {kind.__name__}: {end}: {said!r}", markup=False)
    console.print(_table(found))
    memory = psutil.Process().memory_info().rss >> 20
    console.print(f"{found.total()} mutants, one server process of {memory} MiB.")
    raise SystemExit(any(end in (NO_SENTENCE, HUNG) for _, end in found))


def _table(found: Counter[tuple[str, str]]) -> Table:
    table = Table("what is damaged", *OUTCOMES)
    for kind in KINDS:
        table.add_row(kind.__name__, *(str(found[kind.__name__, end]) for end in OUTCOMES))
    totals = (sum(found[kind.__name__, end] for kind in KINDS) for end in OUTCOMES)
    table.add_row("all", *map(str, totals))
    return table


if __name__ == "__main__":
    run(main)
