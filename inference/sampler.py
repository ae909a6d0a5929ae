"""One row of logits -> one token.

The order is that of transformers and vLLM, for which model cards give their values: bias,
penalties, temperature, top-k, top-p, min-p, draw. A draw depends on (seed, position) alone, so a
sequence that is computed again continues as it would have. The vocabulary (151,936 rows) is only
touched by numpy, and only its head is sorted, unless top-p alone asks for more.
"""

import hashlib
import math
import struct
from collections.abc import Sequence as Ids

import numpy as np
import numpy.typing as npt

from inference.sequence import SamplingParams

Row = npt.NDArray[np.float32]

LEAST = -9999.0  # stands for minus infinity, which JSON cannot say
_COLD = 1e-6  # temperatures below are greedy: their weights are not numbers any more
_HEAD = 1024  # candidates sorted before the whole vocabulary is
_COLUMNS = 1024  # maxima that a search for the head begins with, at least four for each candidate


def adjust(row: Row, params: SamplingParams, tokens: list[int], prompt_len: int) -> None:
    """Apply logit bias and penalties to `row`, shape (vocabulary,), in place.

    The repetition penalty looks at prompt and answer, presence and frequency at the answer only
    (arXiv:1909.05858 for the former; the latter two as in OpenAI's API reference).
    """
    for token, bias in params.logit_bias:
        row[token] += bias
    if params.repeat_penalty != 1.0:
        seen = np.unique(np.asarray(tokens))
        logits = row[seen]
        factor = np.float32(params.repeat_penalty)
        row[seen] = np.where(logits > 0, logits / factor, logits * factor)
    if params.presence_penalty or params.frequency_penalty:
        seen, counts = np.unique(
            np.asarray(tokens[prompt_len:], dtype=np.int64), return_counts=True
        )
        row[seen] -= (params.presence_penalty + params.frequency_penalty * counts).astype(row.dtype)


def forbid(row: Row, tokens: Ids[int]) -> None:
    """Make `tokens` impossible."""
    row[list(tokens)] = -np.inf


def draw(row: Row, params: SamplingParams, position: int) -> int:
    """Sample a token from `row`, shape (vocabulary,); greedy where the temperature is 0.

    -1 where no token can be drawn: a NaN among the logits, or nothing that is possible.
    """
    likeliest = int(row.argmax())  # of a row with a NaN, the NaN
    if not math.isfinite(row[likeliest]):
        return -1
    if params.temperature < _COLD or params.top_k == 1:
        return likeliest
    ids, logits = _candidates(row, params)
    weights = np.exp((logits - logits.max()).astype(np.float64) / params.temperature)
    if params.min_p > 0.0:
        weights[weights < params.min_p * weights.max()] = 0.0
    totals = weights.cumsum()
    choice = int(totals.searchsorted(uniform(params.seed, position) * totals[-1], side="right"))
    choice = min(choice, len(ids) - 1)
    return int(ids[choice])


def score(row: Row, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """The natural log probability of `token` in `row`, shape (vocabulary,), and those of the `top`
    likeliest, in falling order. What is impossible has `LEAST`; where a logit is no number, so is
    the result.
    """
    peak = float(row.max())
    total = peak + math.log(np.exp(row - np.float32(peak)).sum(dtype=np.float64))
    ids, logits = _head(row, top) if top else ((), ())
    likeliest = zip(ids, logits, strict=True)
    return max(float(row[token]) - total, LEAST), [
        (int(id), max(float(logit) - total, LEAST)) for id, logit in likeliest
    ]


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) fixed by its arguments: 53 bits of BLAKE2b."""
    digest = hashlib.blake2b(struct.pack("<QQ", seed, position), digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) / float(1 << 53)


def _candidates(row: Row, params: SamplingParams) -> tuple[npt.NDArray[np.int64], Row]:
    """Ids and logits that survive top-k and top-p."""
    if not 0 < params.top_k < len(row):
        if params.top_p >= 1.0:
            return np.arange(len(row)), row
        return _nucleus(row, params)
    ids, logits = _head(row, params.top_k)
    if params.top_p < 1.0:
        weights = np.exp((logits - logits[0]).astype(np.float64) / params.temperature)
        keep = _reaching(weights, params.top_p * float(weights.sum()))
        ids, logits = ids[:keep], logits[:keep]
    return ids, logits


def _nucleus(row: Row, params: SamplingParams) -> tuple[npt.NDArray[np.int64], Row]:
    """Top-p over the whole vocabulary: the head is sorted first, everything only if it must be."""
    top = row.max()
    mass = np.exp((row - top) / np.float32(params.temperature)).sum(dtype=np.float64)
    for size in (_HEAD, len(row)):
        ids, logits = _head(row, size)
        weights = np.exp((logits - top).astype(np.float64) / params.temperature)
        keep = _reaching(weights, params.top_p * float(mass))
        if keep < len(ids):
            break
    return ids[:keep], logits[:keep]


def _head(row: Row, size: int) -> tuple[npt.NDArray[np.int64], Row]:
    """Ids and logits of the `size` largest, in falling order.

    The row is laid out as a table; where `size` columns have a maximum of at least some value, so
    many logits are that large, and few others. One pass finds the maxima and one the candidates,
    which takes a fifth of the time of a partition of the vocabulary.
    """
    columns = max(_COLUMNS, 4 * size)
    lines = len(row) // columns
    if lines < 2:
        ids = np.arange(len(row))
    else:
        maxima = row[: lines * columns].reshape(lines, columns).max(axis=0)
        ids = np.flatnonzero(row >= np.partition(maxima, -size)[-size])
    ids = ids[np.argsort(-row[ids], kind="stable")][:size]
    return ids, row[ids]


def _reaching(weights: npt.NDArray[np.float64], mass: float) -> int:
    """How many of the falling `weights` reach `mass` together; at least one."""
    return min(int(weights.cumsum().searchsorted(mass)) + 1, len(weights))
