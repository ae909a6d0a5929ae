"""Turns a request into sequences: template, tokens, length check, grammar.

Runs on the worker's intake thread beside the step loop, so that a long prompt delays nobody's
next token. Knows no scheduling and no sampling.
"""

import math
import time
from dataclasses import replace
from functools import cached_property, partial

from inference.grammar import Grammars, Guide, Opening, Vocabulary
from inference.llama import Llama
from inference.renderer import Renderer, Source
from inference.sequence import SamplingParams, Sequence, TextOut
from inference.types import BadRequest, ContextTooLong, Tool
from inference.wire import Chat, Said, Submit, Text, Tokens


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

    def sequences(self, submit: Submit) -> tuple[list[Sequence], bool]:
        """The choices of a request, and whether they start inside a think block.

        Raises BadRequest and ContextTooLong.
        """
        arrived = time.monotonic() - submit.waited
        tokens, thinking = self._tokens(submit.prompt)
        if not tokens:
            raise BadRequest("the prompt is empty", "prompt")
        if bad := next((t for t, _ in submit.sampling.logit_bias if not self._known(t)), None):
            raise BadRequest(f"token {bad} is not in the vocabulary", "logit_bias")
        context = self._llama.info.context
        if len(tokens) >= context:
            raise ContextTooLong(
                f"This model's maximum context length is {context} tokens; "
                f"your prompt has {len(tokens)} and leaves no room for an answer.",
                "messages" if isinstance(submit.prompt, Chat) else "prompt",
            )
        limit = min(context, len(tokens) + (submit.max_tokens or context))
        guides = self._guides(submit, thinking, len(tokens))
        sequences = [
            Sequence(
                id=submit.id,
                index=index,
                tokens=list(tokens),
                limit=limit,
                sampling=_choice(submit.sampling, index),
                min_tokens=submit.min_tokens,
                ignore_eos=submit.ignore_eos,
                guide=guides[index],
                text=TextOut(submit.stop),
                arrived=arrived,
                priority=submit.priority,
                deadline=arrived + (submit.deadline or math.inf),
                salt=submit.salt,
                tenant=submit.tenant,
                speculate=submit.speculate,
            )
            for index in range(submit.n)
        ]
        return self._resumed(sequences, submit.said), thinking

    @cached_property
    def _grammars(self) -> Grammars:
        llama = self._llama
        tokenize = partial(llama.tokenize, special=False)
        return Grammars(Vocabulary(llama.pieces, llama.end_tokens, tokenize))

    def _guides(self, submit: Submit, thinking: bool, start: int) -> list[Guide] | list[None]:
        """What keeps each choice to what it has to be."""
        if submit.constraint is None:
            return [None] * submit.n
        tools: tuple[Tool, ...] = ()
        opening: Opening = "inside" if thinking else "no"
        if isinstance(submit.prompt, Chat):
            tools = submit.prompt.tools
            if not thinking and submit.prompt.kwargs.get("enable_thinking"):
                opening = "perhaps"
        return self._grammars.guides(submit.constraint, tools, opening, start, submit.n)

    def _resumed(self, sequences: list[Sequence], said: tuple[Said, ...]) -> list[Sequence]:
        """Those that have not ended, after what each of them has `said`."""
        for seq, part in zip(sequences, said, strict=False):
            if part.tokens:
                seq.resume(part.tokens, self._llama.pieces, seq.arrived + part.first_token)
        ended = {index for index, part in enumerate(said) if part.ended}
        return [seq for seq in sequences if seq.index not in ended]

    def _tokens(self, prompt: Chat | Text | Tokens) -> tuple[list[int], bool]:
        match prompt:
            case Tokens(ids):
                if bad := next((t for t in ids if not self._known(t)), None):
                    raise BadRequest(f"token {bad} is not in the vocabulary", "prompt")
                return list(ids), False
            case Text(text):
                return self._llama.tokenize(text, special=True, begin=True), False
            case Chat(messages, tools, kwargs):
                if self._renderer is None:
                    raise BadRequest("this model has no chat template; use completions", "messages")
                rendered = self._renderer.render(messages, tools, kwargs)
                tokens: list[int] = []
                for segment in rendered.segments:
                    tokens += self._llama.tokenize(segment.text, special=segment.special)
                return tokens, rendered.thinking

    def _known(self, token: int) -> bool:
        return 0 <= token < self._llama.n_vocab


def _choice(params: SamplingParams, index: int) -> SamplingParams:
    return replace(params, seed=(params.seed + index) % 2**64) if index else params
