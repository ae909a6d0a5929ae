"""The stages from nothing to the shipped files, and the numbers they are run with."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training import card as cards
from training import corpus, tokenizer
from training import export as exports
from training import golden as goldens
from training import score as scoring
from training.dialogue import Dialogue
from training.examples import answered
from training.model import Shape
from training.packing import LENGTHS, Row, pack
from training.runtime import Runtime
from training.topics.knowledge import COUNTRIES
from training.train import Plan, train

SEED = 3072
SCORE_SEED, GOLDEN_SEED = 77, 78
DIALOGUES = 72_000
TOKENIZER_DIALOGUES = 30_000
SCORED, PINNED = 24, 3


@dataclass(frozen=True)
class Work:
    """Where everything lives: a folder of intermediate files, and the two shipped places."""

    folder: Path
    model: Path
    golden: Path

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def rows(self) -> Path:
        return self.folder / "rows.npz"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def facts(self) -> Path:
        """What the run counted, for the card."""
        return self.folder / "facts.json"

    def known(self) -> dict[str, Any]:
        return dict(json.loads(self.facts.read_text())) if self.facts.exists() else {}

    def note(self, **facts: object) -> None:
        self.facts.write_text(json.dumps({**self.known(), **facts}, indent=1) + "\n")


def prepare(work: Work) -> None:
    work.folder.mkdir(parents=True, exist_ok=True)
    dialogues = corpus.training_set(SEED, DIALOGUES)
    some = dialogues[:TOKENIZER_DIALOGUES]
    bpe = tokenizer.train_tokenizer((d.prompt + d.completion for d in some), Shape().vocab)
    bpe.save(str(work.tokenizer))
    encoded = list(tokenizer.encode(bpe, dialogues))
    rows = pack(encoded, bpe.token_to_id("<|endoftext|>"))
    stored = {str(i): np.stack([r.tokens, r.learn, r.documents]) for i, r in enumerate(rows)}
    np.savez(work.rows, **stored)
    lengths = [len(one.tokens) for one in encoded if len(one.tokens) <= LENGTHS[-1]]
    work.note(
        seed=SEED,
        dialogues=len(lengths),
        corpus_tokens=sum(lengths),
        longest=max(lengths),
        countries=len(COUNTRIES),
    )


def load_rows(work: Work) -> list[Row]:
    with np.load(work.rows) as stored:
        return [
            Row(tokens, learn.astype(bool), documents)
            for tokens, learn, documents in (stored[name] for name in stored.files)
        ]


def fit(work: Work) -> None:
    plan, started = Plan(), time.monotonic()
    loss = train(load_rows(work), Shape(), plan, SEED, work.checkpoint)
    minutes = (time.monotonic() - started) / 60
    work.note(trained_tokens=plan.tokens, loss=round(loss, 4), minutes=round(minutes, 1))


def export(work: Work) -> None:
    work.model.parent.mkdir(parents=True, exist_ok=True)
    count = exports.export(work.checkpoint, tokenizer.load(work.tokenizer), work.model)
    work.note(millions=round(count / 1e6, 2))


def score(work: Work) -> None:
    runtime = Runtime(work.model, Shape().context)
    scores, misses = scoring.score(runtime, corpus.held_out_set(SCORE_SEED, SCORED))
    wordings, more = scoring.score_first_words(runtime)
    scores["new wordings"] = wordings
    (work.folder / "scores.json").write_text(json.dumps(scoring.as_rows(scores), indent=1))
    for miss in misses + more:
        print(f"-- {miss.ability}: {miss.prompt[-160:]!r}")
        print(f"   wanted {miss.wanted!r}\n      got {miss.got!r}")
    print("right: {} of {}".format(*scoring.total(scores.values())))


def golden(work: Work) -> None:
    groups: dict[str, list[Dialogue]] = corpus.held_out_set(GOLDEN_SEED, PINNED)
    built = goldens.build(work.model, [one for group in groups.values() for one in group])
    work.golden.parent.mkdir(parents=True, exist_ok=True)
    work.golden.write_text(goldens.dump(built), encoding="utf-8")
    print(f"{len(built['cases'])} cases, {len(built['near_ties'])} near ties")


def card(work: Work) -> None:
    examples = answered(Runtime(work.model, Shape().context))
    scores = json.loads((work.folder / "scores.json").read_text())
    text = json.dumps(examples, ensure_ascii=False, indent=2)
    (work.model.parent / "examples.json").write_text(text + "\n", encoding="utf-8")
    page = cards.card(work.model, work.known(), scores, examples)
    (work.model.parent / "README.md").write_text(page, encoding="utf-8")
