"""Runs trials: `python -m inference.trial_worker`, a line of JSON in for each, a line out.

The model is loaded once and its context opened anew for every trial. A process of its own,
because some settings end it. Knows neither the search nor what the times are for.
"""

import sys
import time

import msgspec
import numpy as np

from inference.engine import Engine
from inference.errors import InferenceError
from inference.llama import DecodeFailed, Llama
from inference.sandbox import confine
from inference.sequence import Chunk, Keep, SamplingParams, Sequence, StepPlan
from inference.trial import CHUNK, Failed, Times, Trial

_RUNS = 5  # of a part, at most
_PATIENCE = 400.0  # milliseconds: no further run after so many
_GREEDY = SamplingParams(temperature=0)


def main() -> None:
    """Answer every line until the input ends; after a failure the model is not to be trusted."""
    llama: Llama | None = None
    for line in sys.stdin.buffer:
        trial = msgspec.json.decode(line, type=Trial)
        try:
            if llama:
                llama.reopen(trial.config)
            else:
                llama = Llama(trial.config)
            answer: Times | Failed = measure(llama, trial)
        except (InferenceError, DecodeFailed) as error:
            answer = Failed(str(error))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
        if isinstance(answer, Failed):
            return


def measure(llama: Llama, trial: Trial) -> Times:
    """The times of the load's parts; the context is open, empty and as the trial wants it."""
    config, length = trial.config, trial.prompt
    separate, joint = Engine(llama), Engine(llama, joint=True)
    prompts = _sequences(config.slots, length, llama.n_vocab)
    answers = _sequences(config.slots, length + 1, llama.n_vocab)

    prompt = _least(separate, _prefill(prompts[0], config.batch))

    state = llama.save(0)
    for slot in range(1, config.slots):  # a copy would share the cells where it can
        llama.restore(slot, state)
    decodes = tuple(Chunk(seq, length, 1) for seq in answers)
    keeps = [Keep(seq.slot, length) for seq in answers]
    decode = StepPlan(tuple(keeps), decodes)
    separate.step(decode)  # the first after the copies is slow

    start = length - CHUNK
    keeps[0] = Keep(0, start)
    mixed = StepPlan(tuple(keeps), decodes[1:], (Chunk(prompts[0], start, CHUNK),))
    return Times(
        prompt=prompt,
        decode=_least(separate, [decode]),
        separate=_least(separate, [mixed]),
        joint=_least(joint, [mixed]),
    )


def _sequences(slots: int, length: int, vocabulary: int) -> list[Sequence]:
    """One in each slot, of random tokens: experts are chosen by them."""
    tokens = np.random.default_rng(0).integers(0, vocabulary, (slots, length)).tolist()
    return [
        Sequence(id=n, slot=n, tokens=tokens[n], limit=length + 1, sampling=_GREEDY)
        for n in range(slots)
    ]


def _prefill(seq: Sequence, batch: int) -> list[StepPlan]:
    """The steps that compute a whole prompt from nothing."""
    starts = range(0, seq.prompt_len, batch)
    chunks = [Chunk(seq, start, min(batch, seq.prompt_len - start)) for start in starts]
    return [StepPlan((Keep(seq.slot, chunk.start),), prefills=(chunk,)) for chunk in chunks]


def _least(engine: Engine, steps: list[StepPlan]) -> float:
    """Milliseconds of `steps`, which trim what they computed when they run again."""
    spent: list[float] = []
    while not spent or (len(spent) < _RUNS and sum(spent) < _PATIENCE):
        start = time.perf_counter()
        for step in steps:
            engine.step(step)
        spent.append((time.perf_counter() - start) * 1000)
    return min(spent)


if __name__ == "__main__":
    confine()
    main()
