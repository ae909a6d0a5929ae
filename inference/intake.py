"""Turns a request into sequences: template, tokens, length check, grammar.

Runs on the worker's intake thread beside the step loop, so that a long prompt delays nobody's
next token. Knows no scheduling and no sampling.
"""

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property, partial
from typing import Final

from inference.budget import Block, Budget, Tags
from inference.errors import BadRequest, ContextTooLong
from inference.grammar import Grammars
from inference.guide import MOST_CALLS, Opening, Outline
from inference.llama import Llama
from inference.logprobs import MOST, Ledger
from inference.packing import Job
from inference.preamble import Preamble
from inference.renderer import Renderer, Source
from inference.sequence import Guide, SamplingParams, Sequence
from inference.text_out import TextOut
from inference.types import TokenLogprob
from inference.vocabulary import Vocabulary
from inference.wire import Chat, Count, Counted, Embed, Said, Submit, Text, Tokens

_LONGEST_TEXT: Final = 8 << 20  # bytes that tokens may spell: they have to fit a frame

Guides = Iterable[Guide | None]

_OPEN, _CLOSE = "<think>", "</think>"
# Said in the model's name when its budget is spent, so that the answer follows from its thoughts.
_LAST_WORDS = f"\n\nSo I answer with what I have so far.\n{_CLOSE}\n\n"


class Intake:
    """What a loaded model needs to understand requests: its template and its vocabulary.

    Raises BadModelFile where the template does not compile.
    """

    def __init__(self, llama: Llama, renderer: Renderer) -> None:
        self._llama = llama
        self._renderer = renderer if llama.chat_template else None
        if llama.chat_template:
            texts = llama.chat_template, llama.control_texts, llama.bos, llama.eos
            renderer.use(Source(*texts))
        self._tags = _tags(llama) if llama.chat_template else None

    def sequences(self, submit: Submit) -> tuple[list[Sequence], bool]:
        """The choices of a request, and whether they start inside a think block.

        Raises BadRequest and ContextTooLong.
        """
        arrived = time.monotonic() - submit.waited
        tokens, thinking = self._tokens(submit.prompt)
        if thinking and submit.thinking_budget == 0:  # its template opens the block in any case
            tokens += self._llama.tokenize(f"\n{_CLOSE}\n\n", special=True)
            thinking = False
        self._check(submit, len(tokens))
        context = self._llama.info.context
        most = context if submit.max_tokens is None else submit.max_tokens
        limit = min(context, len(tokens) + most)
        opening = _opening(submit.prompt, thinking)
        guides = [*self._guides(submit, opening, len(tokens))]
        block = self._block(submit, thinking)
        sequences = [
            Sequence(
                id=submit.id,
                index=index,
                tokens=list(tokens),
                limit=limit,
                sampling=_choice(submit.sampling, index),
                min_tokens=submit.min_tokens,
                ignore_eos=submit.ignore_eos,
                stop_tokens=frozenset(submit.stop_tokens),
                guide=guides[index],
                text=_text(submit.stop, opening),
                budget=_budget(submit, block),
                block=block,
                arrived=arrived,
                priority=submit.priority,
                deadline=arrived + (submit.deadline or math.inf),
                salt=submit.salt,
                tenant=submit.tenant,
                speculate=submit.speculate,
            )
            for index in range(submit.n)
        ]
        for seq in sequences:
            self._open_ledgers(seq, submit)
        return self._resumed(sequences, submit.said), thinking

    def _check(self, submit: Submit, length: int) -> None:
        """Whether a prompt of so many tokens can be answered as asked."""
        if not length:
            raise BadRequest("the prompt is empty", "prompt")
        self._check_tokens([token for token, _ in submit.sampling.logit_bias], "logit_bias")
        self._check_tokens(submit.stop_tokens, "stop_token_ids")
        _check_echo(submit, length)
        context = self._llama.info.context
        if length >= context:
            raise ContextTooLong(
                # Agents go by these words: the first are Anthropic's, the second OpenAI's.
                f"prompt is too long: {length} tokens > {context - 1} maximum. "
                f"This model's maximum context length is {context} tokens, answer included.",
                "messages" if isinstance(submit.prompt, Chat) else "prompt",
            )

    def _check_tokens(self, tokens: Iterable[int], field: str) -> None:
        if bad := next((t for t in tokens if not 0 <= t < self._llama.n_vocab), None):
            raise BadRequest(f"token {bad} is not in the vocabulary", field)

    def job(self, embed: Embed) -> tuple[Job, int]:
        """What an embedding model has still to do for a request, and the tokens of all its inputs.

        Raises BadRequest and ContextTooLong.
        """
        arrived = time.monotonic() - embed.waited
        most = self._llama.info.dimensions
        if (embed.dimensions or 0) > most:
            raise BadRequest(f"dimensions: this model's vectors have {most}.", "dimensions")
        inputs = [self._input(embed, place) for place in range(len(embed.inputs))]
        ended = {place for place, part in enumerate(embed.said) if part.ended}
        job = Job(
            id=embed.id,
            inputs=deque(item for item in enumerate(inputs) if item[0] not in ended),
            dimensions=embed.dimensions,
            normalised=embed.normalised,
            deadline=arrived + (embed.deadline or math.inf),
            tenant=embed.tenant,
        )
        return job, sum(map(len, inputs))

    def _input(self, embed: Embed, place: int) -> list[int]:
        """The tokens of an input. A text ends as the model wants it to, also if it is cut."""
        text = embed.inputs[place]
        tokens, _ = self._tokens(
            Text(text) if isinstance(text, str) else Tokens(text), field="input"
        )
        most = self._llama.info.context
        if not tokens:
            raise BadRequest(f"input {place} is empty", "input")
        if len(tokens) > most and not embed.truncate:
            raise ContextTooLong(
                f"input {place} is too long: {len(tokens)} tokens > {most} maximum. "
                f"This model's maximum context length is {most} tokens.",
                "input",
            )
        if len(tokens) > most:
            end = self._llama.closing if isinstance(text, str) else []
            tokens = tokens[: most - len(end)] + end
        return tokens

    def counted(self, count: Count) -> Counted:
        """What is to be told of a prompt, however long it is. Raises BadRequest."""
        tokens, _ = self._tokens(count.prompt)
        answer = Counted(count.id, len(tokens))
        match count.wants:
            case "tokens":
                answer.tokens = tokens
            case "text":
                answer.text = self._spelled(tokens)
        return answer

    def _spelled(self, tokens: list[int]) -> str:
        """The text of tokens, control tokens as they are written."""
        pieces = [self._llama.written(token) for token in tokens]
        if sum(map(len, pieces)) > _LONGEST_TEXT:
            raise BadRequest(f"tokens: spell more than {_LONGEST_TEXT >> 20} MiB", "tokens")
        return b"".join(pieces).decode(errors="replace")

    def _open_ledgers(self, seq: Sequence, submit: Submit) -> None:
        """What is to be told of a choice beside its own text. What a vocabulary puts before a text,
        such as BOS, is not in its echo."""
        if submit.echo:
            spelled = self._spelled(seq.tokens)
            seq.echo = submit.prompt.text if isinstance(submit.prompt, Text) else spelled
        if submit.logprobs is not None:
            seq.logprobs = Ledger(submit.logprobs, len(seq.echo))
        if submit.logprobs is not None and submit.echo:
            first = self._llama.written(seq.tokens[0])
            seq.prompt_logprobs = Ledger(submit.logprobs, len(seq.echo) - len(spelled))
            seq.prompt_logprobs.add(first, TokenLogprob(first, None))

    @cached_property
    def _grammars(self) -> Grammars:
        llama = self._llama
        tokenize = partial(llama.tokenize, special=False)
        return Grammars(Vocabulary(llama.pieces, llama.end_tokens, tokenize))

    def _guides(self, submit: Submit, opening: Opening, start: int) -> Guides:
        """What keeps each choice to what it has to be, or the calls in it to the tools."""
        outline = Outline(opening, start, MOST_CALLS if submit.parallel_calls else 1)
        asked, chat = submit.constraint, submit.prompt
        tools = chat.tools if isinstance(chat, Chat) else ()
        if asked:
            return self._grammars.guides(asked, tools, outline, submit.n)
        if isinstance(chat, Chat) and tools and not chat.continued:
            return self._grammars.call_guides(tools, outline, submit.n)
        return [None] * submit.n

    def _resumed(self, sequences: list[Sequence], said: tuple[Said, ...]) -> list[Sequence]:
        """Those that have not ended, after what each of them has `said`."""
        for seq, part in zip(sequences, said, strict=False):
            if part.tokens:
                seq.resume(part.tokens, self._llama.pieces, seq.arrived + part.first_token)
        ended = {index for index, part in enumerate(said) if part.ended}
        return [seq for seq in sequences if seq.index not in ended]

    def _tokens(
        self, prompt: Chat | Text | Tokens, field: str = "prompt"
    ) -> tuple[list[int], bool]:
        match prompt:
            case Tokens(ids):
                self._check_tokens(ids, field)
                return list(ids), False
            case Text(text):
                return self._llama.tokenize(text, special=True, begin=True), False
            case Chat(messages, tools, kwargs, continued):
                if self._renderer is None:
                    raise BadRequest("this model has no chat template; use completions", "messages")
                rendered = self._renderer.render(messages, tools, kwargs, continued)
                tokens: list[int] = []
                for segment in rendered.segments:
                    tokens += self._llama.tokenize(segment.text, special=segment.special)
                return tokens, rendered.thinking

    def _block(self, submit: Submit, thinking: bool) -> Block | None:
        """None where there can be no thoughts, or the model has no tokens that say where they
        end."""
        chat = submit.prompt if isinstance(submit.prompt, Chat) else None
        if not (self._tags and chat):
            return None
        if chat.continued and not thinking:  # thoughts come before anything else
            return None
        return Block(self._tags, thinking)


def _opening(prompt: Chat | Text | Tokens, thinking: bool) -> Opening:
    if thinking:
        return "inside"
    match prompt:
        case Chat(kwargs={"enable_thinking": True}, continued=False):
            return "perhaps"
    return "no"


def _text(stop: tuple[str, ...], opening: Opening) -> TextOut:
    """Thoughts need not be told from the rest where there is nothing to look for."""
    plain = opening == "no" or not stop
    return TextOut(stop, None if plain else Preamble(inside=opening == "inside"))


def _tags(llama: Llama) -> Tags | None:
    """Those of a think block, where each is a single token."""
    tags = [llama.tokenize(tag, special=True) for tag in (_OPEN, _CLOSE)]
    if any(len(tokens) != 1 for tokens in tags):
        return None
    blank = frozenset(t for t, piece in enumerate(llama.pieces) if piece.isspace())
    words = llama.tokenize(_LAST_WORDS, special=True)
    (start,), (end,) = tags
    return Tags(start, end, blank, tuple((token, llama.pieces[token]) for token in words))


def _check_echo(submit: Submit, length: int) -> None:
    """Whether a prompt of so many tokens can be repeated as asked."""
    if submit.max_tokens == 0 and not submit.echo:
        raise BadRequest("max_tokens: 0 is for an echo", "max_tokens")
    if not submit.echo:
        return
    if isinstance(submit.prompt, Chat):
        raise BadRequest("echo: only a prompt has one, no conversation", "echo")
    numbers = length * (1 + submit.logprobs) * submit.n if submit.logprobs is not None else 0
    if numbers > MOST:
        raise BadRequest(
            f"logprobs: {numbers} are asked for of the prompt; at most {MOST} are given",
            "logprobs",
        )


def _budget(submit: Submit, block: Block | None) -> Budget | None:
    """None where thoughts have no bound."""
    if not (submit.thinking_budget and block):
        return None
    return Budget(block.tags, submit.thinking_budget, block.inside)


def _choice(params: SamplingParams, index: int) -> SamplingParams:
    return replace(params, seed=(params.seed + index) % 2**64) if index else params
