"""Trains the network on packed rows of dialogues, with a schedule counted in tokens.

Muon moves the matrices, AdamW the embeddings and norms. A checkpoint is written every few minutes
and is enough to export; an interrupted run is not resumed, it is run again.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from training.model import Shape, Trunk
from training.packing import Row

Compiled = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    tokens: int = 7_500_000
    step_tokens: int = 4096
    matrix_lr: float = 3e-3
    vector_lr: float = 3e-3
    warmup: float = 0.02
    cooldown: float = 0.6
    checkpoint_seconds: float = 180.0
    log_steps: int = 50


def learning_rate(progress: float, plan: Plan) -> float:
    """Factor at a share of the budget: linear warm-up, plateau, linear fall to a small rest."""
    if progress < plan.warmup:
        return progress / plan.warmup
    if progress < 1 - plan.cooldown:
        return 1.0
    return max(0.02, (1 - progress) / plan.cooldown)


def optimizers(model: Trunk, plan: Plan) -> list[Optimizer]:
    matrices = [p for p in model.layers.parameters() if p.ndim == 2]
    vectors = [p for p in model.layers.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(
        matrices, lr=plan.matrix_lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(
        [model.embed_tokens.weight, model.norm.weight, *vectors],
        lr=plan.vector_lr,
        betas=(0.9, 0.95),
        weight_decay=0.0,
    )
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]


def batches(rows: list[Row], plan: Plan, seed: int) -> Iterator[list[Row]]:
    """Endless batches of equal token count, each of rows of one length, in a fixed order."""
    rng = np.random.default_rng(seed)
    while True:
        groups: list[list[Row]] = []
        for length in sorted({len(row.tokens) for row in rows}):
            same = [row for row in rows if len(row.tokens) == length]
            rng.shuffle(same)
            size = max(1, plan.step_tokens // length)
            groups += [same[i : i + size] for i in range(0, len(same) - size + 1, size)]
        rng.shuffle(groups)
        yield from groups


def attention_mask(documents: Tensor) -> Tensor:
    """Causal, and blind to the neighbours that share the packed row."""
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return torch.zeros(same.shape, dtype=torch.bfloat16).masked_fill(~(same & causal), -1e4)


def loss_on(model: Trunk, trunk: Compiled, batch: list[Row]) -> Tensor:
    tokens = torch.from_numpy(np.stack([row.tokens for row in batch])).long()
    learn = torch.from_numpy(np.stack([row.learn for row in batch]))
    documents = torch.from_numpy(np.stack([row.documents for row in batch]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = trunk(tokens, attention_mask(documents))
        wanted = learn[:, 1:]
        logits = F.linear(hidden[:, :-1][wanted], model.embed_tokens.weight)
    return F.cross_entropy(logits.float(), tokens[:, 1:][wanted])


def step(
    model: Trunk, trunk: Compiled, batch: list[Row], optims: list[Optimizer], factor: float
) -> float:
    loss = loss_on(model, trunk, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optims:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def save(model: Trunk, shape: Shape, done: int, path: Path) -> None:
    partial = path.with_suffix(".part")
    torch.save({"shape": shape.as_dict(), "tokens": done, "weights": model.state_dict()}, partial)
    partial.replace(path)


def train(rows: list[Row], shape: Shape, plan: Plan, seed: int, path: Path) -> float:
    """Trains to the end of the token budget; returns the mean loss of the last steps."""
    torch.manual_seed(seed)
    torch.set_num_threads(2)
    model = Trunk(shape)
    trunk = torch.compile(model, dynamic=False)
    optims = optimizers(model, plan)
    done, losses, started, saved = 0, [], time.monotonic(), time.monotonic()
    for batch in batches(rows, plan, seed):
        losses.append(step(model, trunk, batch, optims, learning_rate(done / plan.tokens, plan)))
        done += sum(len(row.tokens) for row in batch)
        if len(losses) % plan.log_steps == 0:
            report(done, losses[-plan.log_steps :], started)
        if time.monotonic() - saved > plan.checkpoint_seconds:
            save(model, shape, done, path)
            saved = time.monotonic()
        if done >= plan.tokens:
            break
    save(model, shape, done, path)
    return float(np.mean(losses[-plan.log_steps :]))


def report(done: int, losses: list[float], started: float) -> None:
    seconds = time.monotonic() - started
    print(
        f"{done / 1e6:6.2f} M tokens  loss {math.fsum(losses) / len(losses):.4f}"
        f"  {done / seconds:,.0f} tok/s  {seconds / 60:.1f} min",
        flush=True,
    )
