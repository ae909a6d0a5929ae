"""What the API talks to: a served model that turns a request into a stream of events.

Resolves defaults, bounds the queue, follows the worker's answers and splits them into channels.
Everything below it speaks of tokens and slots, everything above of messages and events. Knows
no HTTP and no llama.cpp.
"""

import asyncio
import os
import secrets
import uuid
from collections.abc import AsyncGenerator, Container, Iterator, Sequence
from dataclasses import asdict, dataclass

import msgspec

from inference.deployment import Deployment
from inference.journal import Answer
from inference.launch import WORKER
from inference.parser import Call, Piece, Reasoning, StreamParser, Text
from inference.replica import STALL, Replica, State
from inference.sequence import SamplingParams
from inference.types import (
    BadRequest,
    Constraint,
    ContextTooLong,
    DeadlineExceeded,
    Finished,
    GenerationEvent,
    GenerationRequest,
    InferenceError,
    ModelInfo,
    NotReady,
    NumericalError,
    Overloaded,
    Poisonous,
    ReasoningDelta,
    Revoked,
    Sampling,
    ShuttingDown,
    Started,
    TextDelta,
    Timings,
    ToolCall,
    ToolCallDelta,
    UnknownModel,
    Usage,
    WorkerLost,
)
from inference.wire import Accepted, Chat, Delta, End, Rejected, Stats, Submit, Tokens
from inference.wire import Text as TextPrompt

_DRAINING = "The server is shutting down and takes no new requests."
_ERRORS = {
    error.code: error
    for error in (
        BadRequest,
        ContextTooLong,
        DeadlineExceeded,
        NotReady,
        NumericalError,
        Poisonous,
        Revoked,
        WorkerLost,
    )
}


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A snapshot for health checks and metrics; `cells` is the size of the KV cache."""

    state: State
    detail: str
    name: str
    aliases: tuple[str, ...]
    info: ModelInfo | None
    cells: int
    restarts: int
    stats: Stats


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

    def expel(self, tenants: Container[str]) -> None:
        """End the requests of tenants that are none of these with `Revoked`."""
        self._replica.expel(tenants)

    @property
    def ready(self) -> bool:
        return self._replica.state == "ready" and not self._draining

    @property
    def worker_pid(self) -> int | None:
        return self._replica.pid

    def status(self) -> PoolStatus:
        replica, model = self._replica, self._deployment.model
        draining = self._draining and replica.state != "stopped"
        return PoolStatus(
            state="draining" if draining else replica.state,
            detail=_DRAINING if draining else replica.detail,
            name=model.name,
            aliases=model.aliases,
            info=replica.info,
            cells=self._deployment.engine.context,
            restarts=replica.restarts,
            stats=replica.stats,
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """The events of a request: `Started`, deltas, one `Finished` for each choice.

        Closing the iterator cancels the request in the model. Raises UnknownModel, Overloaded,
        NotReady, BadRequest, ContextTooLong before `Started`; DeadlineExceeded, NumericalError,
        Revoked and WorkerLost at any time.
        """
        self._check(request)
        submit = self._resolve(request)
        self._live += request.n
        unfinished = request.n
        try:
            answers = self._replica.submit(submit)
            accepted = _expect(await answers.get())
            assert isinstance(accepted, Accepted)
            yield Started(accepted.prompt_tokens)
            choices = [_Choice(i, request, accepted) for i in range(request.n)]
            while unfinished:
                for answer in _merged(await answers.get(), answers):
                    match _expect(answer):
                        case Delta(index=index, text=text):
                            for event in choices[index].text(text):
                                yield event
                        case End() as end:
                            unfinished -= 1
                            self._note(end)
                            for event in choices[end.index].end(end):
                                yield event
        finally:
            self._live -= request.n
            self._replica.finish(submit.id, cancel=unfinished > 0)

    def _check(self, request: GenerationRequest) -> None:
        model = self._deployment.model
        if request.model not in (None, "default", model.name, *model.aliases):
            raise UnknownModel(f"No model of that name is served; this is {model.name}.", "model")
        if self._draining:
            raise ShuttingDown(_DRAINING)
        if not self._replica.accepting:
            raise NotReady(self._excuse(), retry_after=self._replica.retry_after)
        if request.n > self._bound:
            raise BadRequest(f"n is {request.n}; this server takes at most {self._bound}", "n")
        if self._live + request.n > self._bound:
            waiting = max(0, self._live - self._deployment.engine.slots)
            seconds = self._mean_seconds * (1 + waiting / self._deployment.engine.slots)
            raise Overloaded(
                "The server's queue is full; please try again later.",
                retry_after=min(60, max(1, round(seconds))),
            )

    def _excuse(self) -> str:
        """Why there is no worker, for those who need not know where files are."""
        detail = self._replica.detail or "the model is still loading"
        for path in (self._deployment.engine.path, self._deployment.engine.draft):
            detail = detail.replace(path, os.path.basename(path))
        return detail

    def _resolve(self, request: GenerationRequest) -> Submit:
        """Lay the model's defaults under what the request says."""
        model = self._deployment.model
        kwargs = {"enable_thinking": model.thinking, **request.template_kwargs}
        if request.thinking is not None:
            kwargs["enable_thinking"] = request.thinking
        recommended = model.sampling.thinking if kwargs["enable_thinking"] else model.sampling.plain
        sampling = request.sampling.over(recommended)
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed % 2**64
        submit = Submit(
            id=next(self._ids),
            prompt=_prompt(request, kwargs),
            sampling=_params(sampling, seed),
            constraint=_only(request.constraints),
            max_tokens=request.max_tokens,
            min_tokens=request.min_tokens,
            ignore_eos=request.ignore_eos,
            priority=request.priority,
            deadline=request.deadline,
            salt=request.salt,
            tenant=request.tenant,
            speculate=request.speculate,
            stop=request.stop,
            n=request.n,
        )
        try:  # the worker trusts what it is sent
            return msgspec.convert(msgspec.to_builtins(submit), Submit)
        except (msgspec.ValidationError, TypeError) as error:
            raise BadRequest(f"the request is malformed: {error}") from None

    def _note(self, end: End) -> None:
        self._mean_seconds += (end.total - end.queued - self._mean_seconds) / 16


class _Choice:
    """Follows one choice of a request: its channels, its tool calls, its end."""

    def __init__(self, index: int, request: GenerationRequest, accepted: Accepted) -> None:
        self._index = index
        self._prompt_tokens = accepted.prompt_tokens
        self._calls = 0
        self._parser = (
            StreamParser(thinking=accepted.thinking, tools=bool(request.tools))
            if request.messages
            else None
        )

    def text(self, text: str) -> Iterator[GenerationEvent]:
        return self._events(self._parser.feed(text) if self._parser else [Text(text)])

    def end(self, end: End) -> Iterator[GenerationEvent]:
        if end.text:
            yield from self.text(end.text)
        if self._parser:
            yield from self._events(self._parser.finish())
        yield Finished(
            self._index,
            "tool_calls" if self._calls and end.reason == "stop" else end.reason,
            Usage(self._prompt_tokens, end.completion_tokens, end.cached_tokens),
            Timings(end.queued, end.first_token, end.total),
        )

    def _events(self, pieces: list[Piece]) -> Iterator[GenerationEvent]:
        for piece in pieces:
            match piece:
                case Text(text):
                    yield TextDelta(self._index, text)
                case Reasoning(text):
                    yield ReasoningDelta(self._index, text)
                case Call(name, arguments):
                    call = ToolCall(f"call_{uuid.uuid4().hex[:24]}", name, arguments)
                    yield ToolCallDelta(self._index, self._calls, call)
                    self._calls += 1


def _prompt(request: GenerationRequest, kwargs: dict[str, object]) -> Chat | TextPrompt | Tokens:
    match request.prompt:
        case None:
            return Chat(request.messages, request.tools, kwargs)
        case str(text):
            return TextPrompt(text)
        case ids:
            return Tokens(ids)


def _only(constraints: tuple[Constraint, ...]) -> Constraint | None:
    """Raises BadRequest where an answer has to be two things at once."""
    if len(constraints) < 2:
        return constraints[0] if constraints else None
    first, second = constraints[0].field, constraints[1].field
    raise BadRequest(f"{second}: {first} already says what the answer has to be.", second)


def _params(sampling: Sampling, seed: int) -> SamplingParams:
    """Resolved sampling: what nobody said takes its neutral value."""
    said = {name: value for name, value in asdict(sampling).items() if value is not None}
    return SamplingParams(**said | {"seed": seed})


def _merged(first: Answer, answers: asyncio.Queue[Answer]) -> list[Answer]:
    """What has come in, neighbouring texts of a choice joined: a slow reader gets fewer events."""
    merged = [first]
    while not answers.empty():
        answer, last = answers.get_nowait(), merged[-1]
        if isinstance(answer, Delta) and isinstance(last, Delta) and answer.index == last.index:
            merged[-1] = Delta(answer.id, answer.index, last.text + answer.text)
        else:
            merged.append(answer)
    return merged


def _expect(answer: Answer) -> Answer:
    """`answer`, unless it is a rejection. Raises what the rejection says."""
    if isinstance(answer, Rejected):
        raise _ERRORS.get(answer.code, InferenceError)(answer.message, answer.field)
    return answer
