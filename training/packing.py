"""Packs encoded dialogues into rows of a few fixed lengths.

Compiled code then sees few shapes, and short rows keep attention cheap.
"""

from dataclasses import dataclass

import numpy as np

LENGTHS = (256, 512, 2048)


@dataclass(frozen=True)
class Encoded:
    """Token ids of one dialogue, and which of them the loss looks at."""

    tokens: list[int]
    learn: list[bool]


@dataclass(frozen=True)
class Row:
    tokens: np.ndarray
    learn: np.ndarray
    documents: np.ndarray


def pack(dialogues: list[Encoded], pad: int) -> list[Row]:
    """First-come packing into the shortest rows that can hold a dialogue.

    What is longer than the context is left out.
    """
    rows, below = [], 0
    for length in LENGTHS:
        fitting = [d for d in dialogues if below < len(d.tokens) <= length]
        rows += fill(fitting, length, pad)
        below = length
    return rows


def fill(dialogues: list[Encoded], length: int, pad: int) -> list[Row]:
    """Keeps a few rows open and puts each dialogue into the fullest one that still has room."""
    rows: list[Row] = []
    bins: list[list[Encoded]] = []
    for dialogue in dialogues:
        fits = [b for b in bins if weight(b) + len(dialogue.tokens) <= length]
        if fits:
            max(fits, key=weight).append(dialogue)
            continue
        bins.append([dialogue])
        if len(bins) > 12:
            fullest = max(bins, key=weight)
            bins.remove(fullest)
            rows.append(row(fullest, length, pad))
    return rows + [row(b, length, pad) for b in bins]


def weight(bin_: list[Encoded]) -> int:
    return sum(len(dialogue.tokens) for dialogue in bin_)


def row(bin_: list[Encoded], length: int, pad: int) -> Row:
    tokens = np.full(length, pad, dtype=np.int16)
    learn = np.zeros(length, dtype=bool)
    documents = np.full(length, -1, dtype=np.int16)
    start = 0
    for number, dialogue in enumerate(bin_):
        end = start + len(dialogue.tokens)
        tokens[start:end] = dialogue.tokens
        learn[start:end] = dialogue.learn
        learn[start] = False
        documents[start:end] = number
        start = end
    return Row(tokens, learn, documents)
