"""Held-out prompts with the reference continuation, for the test suite to demand token by token.

What is demanded is decided by the reference alone: a case whose two best logits once came closer
than any rounding could be trusted to tell apart is listed under `near_ties` instead.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from training.dialogue import Dialogue
from training.model import Shape
from training.reference import greedy, reference_model
from training.runtime import Runtime

LIMIT = 64
NEAR_TIE = 0.05  # logits; llama.cpp keeps the KV cache in 16 bits, the reference in 32
REFERENCE = (
    "transformers Qwen3ForCausalLM, fp32, greedy, with the Q8_0 weights of the file dequantised"
)


def build(path: Path, dialogues: list[Dialogue]) -> dict[str, Any]:
    shape = Shape()
    model, runtime = reference_model(path, shape), Runtime(path, shape.context)
    cases: list[dict[str, Any]] = []
    for dialogue in dialogues:
        ids = runtime.tokenize(dialogue.prompt)
        continuation, gap = greedy(model, ids, runtime.end, LIMIT)
        cases.append(
            {
                "ability": dialogue.ability,
                "thinking": dialogue.thinking,
                "prompt": dialogue.prompt,
                "prompt_ids": ids,
                "continuation_ids": continuation,
                "continuation": runtime.text(continuation),
                "smallest_logit_gap": round(gap, 4),
            }
        )
    return {
        "model": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "reference": REFERENCE,
        "limit": LIMIT,
        "near_tie": NEAR_TIE,
        "cases": [case for case in cases if case["smallest_logit_gap"] >= NEAR_TIE],
        "near_ties": [case for case in cases if case["smallest_logit_gap"] < NEAR_TIE],
    }


def dump(golden: dict[str, Any]) -> str:
    """JSON with one case per line: small, and readable in a diff."""
    head = {k: v for k, v in golden.items() if k not in ("cases", "near_ties")}
    lists = [
        f'"{name}": [\n'
        + ",\n".join(json.dumps(case, ensure_ascii=False) for case in golden[name])
        + "\n]"
        for name in ("cases", "near_ties")
    ]
    return json.dumps(head, indent=0)[:-2] + ",\n" + ",\n".join(lists) + "\n}\n"
