"""`python -m training [stage]`: all stages in order, or a single one."""

import argparse
import json
import os
from pathlib import Path

# Spinning threads starve each other as soon as something else uses a core; read at import of torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from training import stages

ROOT = Path(__file__).parent.parent
STAGES = {
    "prepare": "corpus, tokenizer and packed rows",
    "fit": "train the network",
    "export": "write the GGUF file",
    "score": "ask held-out questions",
    "golden": "write the reference continuations",
    "card": "write the card and its examples",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument(
        "stage",
        nargs="?",
        choices=[*STAGES, "all"],
        default="all",
        help="; ".join(f"{name}: {what}" for name, what in STAGES.items()),
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "training")
    parser.add_argument("--model", type=Path, default=ROOT / "inference/demo/qwen3-demo.gguf")
    parser.add_argument("--golden", type=Path, default=ROOT / "tests/golden/qwen3_demo_greedy.json")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    work = stages.Work(args.work, args.model, args.golden)
    for name in STAGES if args.stage == "all" else [args.stage]:
        print(f"== {name}: {STAGES[name]}", flush=True)
        getattr(stages, name)(work)
    print(json.dumps(work.known(), indent=1))


main()
