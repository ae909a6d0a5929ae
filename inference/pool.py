"""What the API talks to: a served model that turns a request into a stream of events.

Resolves defaults, bounds the queue, follows the worker's answers and splits them into channels.
Everything below it speaks of tokens and slots, everything above of messages and events. Knows
no HTTP and no llama.cpp.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict
from typing import Literal, TypeVar

import msgspec

from inference import embedding
from inference.choice import Choice, joined
from inference.deployment import Deployment
from inference.errors import (
    BadRequest,
    InferenceError,
    NotReady,
    Overloaded,
    ShuttingDown,
    UnknownModel,
)
from inference.journal import Answer
from inference.launch import WORKER
from inference.model import Model
from inference.refusals import expect
from inference.replica import STALL, Replica
from inference.sequence import SamplingParams
from inference.status import PoolStatus
from inference.thoughts import thinks
from inference.types import (
    Asked,
    Constraint,
    EmbeddingRequest,
    Embeddings,
    GenerationEvent,
    GenerationRequest,
    LiveRequest,
    Sampling,
    Started,
)
from inference.wire import (
    Accepted,
    Chat,
    Count,
    Counted,
    Delta,
    Embed,
    End,
    Submit,
    Tokens,
)
from inference.wire import Text as TextPrompt

Command = TypeVar("Command", Submit, Embed, Count)

DRAINING = "The server is shutting down and takes no new requests."
_FULL = "The server's queue is full; please try again later."
_NOT_BEGUN = "Only a last message of the assistant, without tool calls, can be continued."


class Pool:
    """One model, served. `queue` bounds the choices that may wait for a slot.

    `in_process=True` runs the worker on a thread instead of in a child process: for notebooks
    and tests, where a crash of llama.cpp may end the program. `command` starts another worker; one
    that says nothing for `stall` seconds is killed and replaced.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        queue: int = 256,
        in_process: bool = False,
        command: Sequence[str] = WORKER,
        stall: float = STALL,
    ) -> None:
        self._deployment = deployment
        self._embeds = bool(deployment.engine.pooling)
        self._bound = queue + deployment.engine.slots
        self._replica = Replica(
            deployment.engine, threaded=in_process, command=command, stall=stall
        )
        self._ids = iter(range(1, 2**63))
        self._live = 0
        self._draining = False
        self._mean_seconds = 1.0  # of a request, for Retry-After

    async def start(self) -> None:
        """Begin to load; `until_ready` waits for the end of it."""
        self._replica.start()

    async def until_ready(self) -> None:
        """Wait for the model. Raises NotReady with the reason when it cannot be loaded."""
        if await self._replica.settled() != "ready":
            raise NotReady(f"{self._deployment.model.name}: {self._replica.detail}")

    def drain(self) -> None:
        """Take no more requests; those that run go on."""
        self._draining = True

    async def close(self, patience: float = 10.0) -> None:
        """End the worker, by force after `patience` seconds; requests that still run end with an
        error."""
        await self._replica.close(patience)

    def live(self) -> list[LiveRequest]:
        """The requests that are not answered yet."""
        return self._replica.live()

    def end(self, which: Callable[[Asked], bool], why: InferenceError) -> int:
        """End the requests of which `which` is true with an error; how many there were."""
        return self._replica.end(which, why)

    @property
    def ready(self) -> bool:
        return self._replica.state == "ready" and not self._draining

    @property
    def model(self) -> Model:
        return self._deployment.model

    @property
    def worker_pid(self) -> int | None:
        return self._replica.pid

    def status(self) -> PoolStatus:
        replica, model = self._replica, self._deployment.model
        draining = self._draining and replica.state != "stopped"
        return PoolStatus(
            state="draining" if draining else replica.state,
            detail=DRAINING if draining else replica.detail,
            name=model.name,
            aliases=model.aliases,
            info=replica.info,
            cells=self._deployment.engine.context,
            restarts=replica.restarts,
            stats=replica.stats,
            streams_only=model.stream == "required",
            quant=self._deployment.header.quant,
            size=self._deployment.header.size,
            on_gpu=self._deployment.plan.on_gpu.weights,
            embeds=self._embeds,
            pid=replica.pid,
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """The events of a request: `Started`, deltas, one `Finished` for each choice.

        Closing the iterator cancels the request in the model. Raises UnknownModel, Overloaded,
        NotReady, BadRequest, ContextTooLong before `Started`; DeadlineExceeded, NumericalError,
        WorkerLost and what `end` is told at any time.
        """
        self._check(request, embeds=False)
        submit = self._resolve(request)
        self._live += request.n
        unfinished = request.n
        try:
            answers = self._replica.submit(submit, request)
            accepted = expect(await answers.get())
            assert isinstance(accepted, Accepted)
            yield Started(accepted.prompt_tokens)
            choices = [Choice(i, request, accepted) for i in range(request.n)]
            while unfinished:
                for answer in joined(await _come(answers)):
                    match expect(answer):
                        case Delta(index=index, text=text, logprobs=logprobs):
                            for event in choices[index].text(text, logprobs):
                                yield event
                        case End() as end:
                            unfinished -= 1
                            self._note(end)
                            for event in choices[end.index].end(end):
                                yield event
        finally:
            self._live -= request.n
            self._replica.finish(submit.id, cancel=unfinished > 0)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """A vector for each input. Who stops waiting cancels it. Raises as `generate`."""
        self._admit(request.model, embeds=True)
        command = _sound(embedding.command(next(self._ids), request))
        self._live += 1
        whole = False
        try:
            answers = self._replica.submit(command, request)
            made = await embedding.collected(answers, len(request.inputs))
            whole = True
            self._mean_seconds += (made.seconds - self._mean_seconds) / 16
            return made
        finally:
            self._live -= 1
            self._replica.finish(command.id, cancel=not whole)

    async def count(self, request: GenerationRequest) -> int:
        """How many tokens the prompt of a request has, whether or not it fits.

        Raises as `generate` before `Started`, but not for that.
        """
        return (await self._told(request)).count

    async def tokenize(self, request: GenerationRequest) -> list[int]:
        """The tokens of the prompt of a request. Raises as `count`."""
        return (await self._told(request, "tokens")).tokens

    async def detokenize(self, request: GenerationRequest) -> str:
        """The text of a prompt of tokens. Raises as `count`."""
        return (await self._told(request, "text")).text

    async def _told(
        self, request: GenerationRequest, wants: Literal["", "tokens", "text"] = ""
    ) -> Counted:
        self._check(request)
        prompt = _prompt(request, self._kwargs(request))
        count = Count(next(self._ids), prompt, wants, request.tenant)
        self._live += 1
        try:
            answer = expect(await self._replica.submit(_sound(count), request).get())
            assert isinstance(answer, Counted)
            return answer
        finally:
            self._live -= 1
            self._replica.finish(count.id, cancel=False)

    def _check(self, request: GenerationRequest, *, embeds: bool | None = None) -> None:
        last = request.messages[-1] if request.continued else None
        if last and (last.role != "assistant" or last.tool_calls):
            raise BadRequest(_NOT_BEGUN, "messages")
        self._admit(request.model, request.n, embeds=embeds)

    def _admit(self, name: str | None, n: int = 1, *, embeds: bool | None) -> None:
        """Whether a request for model `name` with `n` choices may come in now; `embeds` says which
        kind of model it is for, None that either will do."""
        model = self._deployment.model
        if name not in (None, "default", model.name, *model.aliases):
            raise UnknownModel(f"No model of that name is served; this is {model.name}.", "model")
        if embeds is not None:
            embedding.check_kind(model.name, is_one=self._embeds, wanted=embeds)
        if self._draining:
            raise ShuttingDown(DRAINING)
        if not self._replica.accepting:
            raise NotReady(self._excuse(), retry_after=self._replica.retry_after)
        if n > self._bound:
            raise BadRequest(f"n is {n}; this server takes at most {self._bound}", "n")
        if self._live + n > self._bound:
            waiting = max(0, self._live - self._deployment.engine.slots)
            seconds = self._mean_seconds * (1 + waiting / self._deployment.engine.slots)
            raise Overloaded(_FULL, retry_after=min(60, max(1, round(seconds))))

    def _excuse(self) -> str:
        """Why there is no worker, for those who need not know where files are."""
        detail = self._replica.detail or "the model is still loading"
        for path in (self._deployment.engine.path, self._deployment.engine.draft):
            detail = detail.replace(path, os.path.basename(path))
        return detail

    def _resolve(self, request: GenerationRequest) -> Submit:
        """Lay the model's defaults under what the request says."""
        model, kwargs = self._deployment.model, self._kwargs(request)
        recommended = model.sampling.thinking if kwargs["enable_thinking"] else model.sampling.plain
        sampling = request.sampling.over(recommended)
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed % 2**64
        return _sound(
            Submit(
                id=next(self._ids),
                prompt=_prompt(request, kwargs),
                sampling=_params(sampling, seed),
                max_tokens=request.max_tokens,
                constraint=_only(request),
                parallel_calls=request.parallel_calls,
                thinking_budget=request.thinking_budget,
                min_tokens=request.min_tokens,
                ignore_eos=request.ignore_eos,
                priority=request.priority,
                deadline=request.deadline,
                salt=request.salt,
                tenant=request.tenant,
                speculate=request.speculate,
                stop=request.stop,
                stop_tokens=request.stop_tokens,
                logprobs=request.logprobs,
                echo=request.echo,
                n=request.n,
            )
        )

    def _kwargs(self, request: GenerationRequest) -> dict[str, object]:
        """What the template is given."""
        thinking = thinks(request, self._deployment.model.thinking)
        return {**request.template_kwargs, "enable_thinking": thinking}

    def _note(self, end: End) -> None:
        self._mean_seconds += (end.total - end.queued - self._mean_seconds) / 16


def _sound(command: Command) -> Command:
    """`command`, which the worker will trust. Raises BadRequest where it is not what it says."""
    try:
        return msgspec.convert(msgspec.to_builtins(command), type(command))
    except (msgspec.ValidationError, TypeError) as error:
        raise BadRequest(f"the request is malformed: {error}") from None


def _prompt(request: GenerationRequest, kwargs: dict[str, object]) -> Chat | TextPrompt | Tokens:
    match request.prompt:
        case None:
            return Chat(request.messages, request.tools, kwargs, request.continued)
        case str(text):
            return TextPrompt(text)
        case ids:
            return Tokens(ids)


def _only(request: GenerationRequest) -> Constraint | None:
    """Raises BadRequest where an answer has to be two things at once, or is begun already."""
    if not request.constraints:
        return None
    first, *more = request.constraints
    if more:
        other = more[0].field
        raise BadRequest(f"{other}: {first.field} already says what the answer has to be.", other)
    if request.continued:
        raise BadRequest(f"{first.field}: an answer that is begun is kept to nothing.", first.field)
    return first


def _params(sampling: Sampling, seed: int) -> SamplingParams:
    """Resolved sampling: what nobody said takes its neutral value."""
    said = {name: value for name, value in asdict(sampling).items() if value is not None}
    return SamplingParams(**said | {"seed": seed})


async def _come(answers: asyncio.Queue[Answer]) -> list[Answer]:
    """What has come in, one at least."""
    came = [await answers.get()]
    while not answers.empty():
        came.append(answers.get_nowait())
    return came
