"""Holds random weights to schemas and to calls of tools: `python -m benchmarks.structured`.

They would say anything, so that whatever is right in an answer is the grammar's doing. Another
library than the one that makes the masks is the judge. Then what a mask costs, for a vocabulary of
Qwen3's size.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import jsonschema_rs
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import run
from benchmarks.schemas import Schema, schemas
from benchmarks.synthetic import PRESETS, write
from inference import (
    ArgumentsDelta,
    Constraint,
    Finished,
    GenerationRequest,
    InferenceError,
    Message,
    Pool,
    Sampling,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    Wishes,
    load_config,
    prepare,
)
from inference.grammar import Grammars
from inference.guide import Outline
from inference.llama import Llama
from inference.vocabulary import Vocabulary

VOCABULARY: Final = 151_936
MOST_MS: Final = 1.0  # for a mask, in the mean
_PATIENT: Final = Wishes(context=8 * 8192, slots=8)
_SAMPLINGS: Final = (
    Sampling(temperature=0),
    Sampling(temperature=1, seed=1),
    Sampling(temperature=1, seed=2, top_p=0.95),
    Sampling(temperature=0.6, seed=3, top_k=20),
    Sampling(temperature=2, seed=4, presence_penalty=1, repeat_penalty=1.2),
)


@dataclass(slots=True)
class Tally:
    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def book(self, problem: str) -> None:
        if problem:
            self.wrong[problem] += 1
        else:
            self.right += 1


def main(
    schemata: Annotated[int, typer.Option(min=1, help="Each is answered five times.")] = 200,
    calls: Annotated[int, typer.Option(min=0, help="Of tools.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the schemas.")] = 0,
) -> None:
    """Hold random weights to schemas; end with 1 unless all answers are right and masks fast."""
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "random.gguf"
        write(weights, replace(PRESETS["tiny"], vocabulary=VOCABULARY))
        answered, called = asyncio.run(trial(weights, schemata, calls, seed))
        costs = mask_costs(weights, seed)
    table = Table("", "right", "wrong")
    for name, tally in (("answers", answered), ("forced calls", called)):
        table.add_row(name, str(tally.right), str(dict(tally.wrong) or 0))
    console = Console()
    console.print(table)
    mean, worst = float(np.mean(costs)), float(np.percentile(costs, 99))
    console.print(f"A mask takes {mean:.3f} ms in the mean, {worst:.3f} ms at the 99th percentile.")
    if answered.wrong or called.wrong or mean > MOST_MS:
        raise SystemExit(1)


async def trial(weights: Path, schemata: int, calls: int, seed: int) -> tuple[Tally, Tally]:
    """How many answers and how many calls are right."""
    pool = Pool(prepare(load_config(), str(weights), _PATIENT, tuned=False), queue=8192)
    await pool.start()
    try:
        await pool.until_ready()
        answered = await _tally(pool, answers(schemata, seed))
        return answered, await _tally(pool, forced_calls(calls, seed))
    finally:
        await pool.close()


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and what its answer, or each of its calls by the tool's name, has to fit."""

    request: GenerationRequest
    fits: dict[str, Schema]


def answers(schemata: int, seed: int) -> Iterator[Case]:
    """Each schema under each way to draw."""
    for schema in schemas(schemata, seed):
        asked = Constraint("schema", "response_format", json.dumps(schema))
        for sampling in _SAMPLINGS:
            yield Case(_request(sampling, constraints=(asked,)), {"": schema})


def forced_calls(count: int, seed: int) -> Iterator[Case]:
    """One tool by name, or any of three, once or several times."""
    made = schemas(3 * count, seed + 1)
    for number in range(count):
        tools = tuple(Tool(f"f{i}", "", next(made), strict=True) for i in range(3))
        wanted = tools[1:2] if number % 2 else tools
        name = wanted[0].name if number % 2 else ""
        request = _request(
            _SAMPLINGS[number % len(_SAMPLINGS)],
            constraints=(Constraint("calls", "tool_choice", name),),
            tools=tools,
            parallel_calls=number % 4 < 2,
        )
        yield Case(request, {tool.name: tool.parameters for tool in wanted})


def _request(sampling: Sampling, **kwargs: Any) -> GenerationRequest:
    asked = (Message("user", "Please."),)
    return GenerationRequest(
        id="structured", messages=asked, thinking=False, sampling=sampling, **kwargs
    )


async def _tally(pool: Pool, cases: Iterable[Case]) -> Tally:
    tally = Tally()
    for problem in await asyncio.gather(*(problem_of(pool, case) for case in cases)):
        tally.book(problem)
    return tally


async def problem_of(pool: Pool, case: Case) -> str:
    """What is wrong with the answer; empty if nothing is."""
    text, reason = "", ""
    calls: list[ToolCall] = []
    try:
        async for event in pool.generate(case.request):
            match event:
                case TextDelta(text=piece):
                    text += piece
                case ToolCallDelta(call=call):
                    calls.append(call)
                case ArgumentsDelta(text=piece):
                    calls[-1] = replace(calls[-1], arguments=calls[-1].arguments + piece)
                case Finished(reason=reason):
                    pass
    except InferenceError as error:
        return error.message
    if reason == "length":
        return "it does not end"
    return _misfit(text, case.fits[""]) if "" in case.fits else _miscall(text, calls, case)


def _miscall(text: str, calls: list[ToolCall], case: Case) -> str:
    if text or not calls:
        return "it is no call"
    if len(calls) > 1 and not case.request.parallel_calls:
        return "several calls"
    if any(call.name not in case.fits for call in calls):
        return "another tool"
    return next(filter(None, (_misfit(c.arguments, case.fits[c.name]) for c in calls)), "")


def _misfit(text: str, schema: Schema) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return "it is no JSON"
    valid = jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(value)
    return "" if valid else "it does not fit"


def mask_costs(weights: Path, seed: int, count: int = 40) -> list[float]:
    """Milliseconds of a processor for each token of answers that are drawn at random."""
    config = prepare(load_config(), str(weights), _PATIENT, tuned=False).engine
    rng = np.random.default_rng(seed)
    with closing(Llama(config)) as llama:
        tokenize = partial(llama.tokenize, special=False)
        grammars = Grammars(Vocabulary(llama.pieces, llama.end_tokens, tokenize))
        return [
            cost
            for schema in schemas(count, seed)
            for cost in _costs(grammars, schema, rng, llama.n_vocab)
        ]


def _costs(
    grammars: Grammars, schema: Schema, rng: np.random.Generator, size: int
) -> Iterator[float]:
    asked = Constraint("schema", "response_format", json.dumps(schema))
    [guide] = grammars.guides(asked, (), Outline("no", 0))
    tokens: list[int] = []
    whole = False
    while not whole:
        row = rng.standard_normal(size, np.float32)
        start = time.thread_time()
        guide.mask(row, tokens, may_end=True)
        masked = time.thread_time() - start
        tokens.append(int(row.argmax()))
        start = time.thread_time()
        whole = guide.take(tokens[-1])
        yield 1000 * (masked + time.thread_time() - start)


if __name__ == "__main__":
    run(main)
