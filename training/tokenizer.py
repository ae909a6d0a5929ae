"""Byte-level BPE in the manner of Qwen2, trained on the corpus; and the encoding of dialogues."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.dialogue import Dialogue
from training.packing import Encoded

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
DEFINED = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
]  # fmt: skip
# llama.cpp knows this split as `qwen2`; each digit is a token of its own.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Longer tokens (whole Chinese clauses) would not generalise and overflow buffers of clients.
LONGEST_TOKEN = 12


def new_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learns merges on text without the special tokens, which then get the last ids."""
    tokenizer = new_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(CONTROL) - len(DEFINED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=LONGEST_TOKEN,
        show_progress=False,
    )
    tokenizer.train_from_iterator((plain(text) for text in texts), trainer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in CONTROL])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in DEFINED])
    return tokenizer


def plain(text: str) -> str:
    for token in (*CONTROL, *DEFINED):
        text = text.replace(token, "\n")
    return text


def load(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def encode(tokenizer: Tokenizer, dialogues: list[Dialogue]) -> Iterator[Encoded]:
    """Token ids and the places the loss looks at: the asked answer, and earlier answers but for
    their first token, which thinking would change."""
    prompts = tokenizer.encode_batch_fast([d.prompt for d in dialogues], add_special_tokens=False)
    answers = tokenizer.encode_batch_fast(
        [d.completion for d in dialogues], add_special_tokens=False
    )
    header = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False).ids
    end = tokenizer.token_to_id("<|im_end|>")
    for prompt, answer in zip(prompts, answers, strict=True):
        learn = earlier_answers(prompt.ids, header, end) + [True] * len(answer.ids)
        yield Encoded(prompt.ids + answer.ids, learn)


def earlier_answers(ids: list[int], header: list[int], end: int) -> list[bool]:
    """True for what follows a header and one more token, up to its end token.

    The open turn at the end of the prompt stays out: its empty think block is given, not said.
    """
    learn = [False] * len(ids)
    start = None
    for place in range(len(header), len(ids)):
        if start is not None and ids[place] == end:
            learn[start : place + 1] = [True] * (place + 1 - start)
            start = None
        elif ids[place - len(header) : place] == header:
            start = place + 1
    return learn
