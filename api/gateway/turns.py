"""The answers that are being made in sessions: begun, found again, waited for.

A turn of a session is stored before anybody is told of it, and goes on when its client is gone.
What was refused has left nothing behind but summaries of what was there. Knows no wire shape.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from time import monotonic, time

import msgspec

from api.errors import TooManyRequests
from api.gateway import compaction
from api.gateway.compaction import Tell
from api.gateway.events import Stored
from api.gateway.place import Place
from api.gateway.prompt import Prompt, latest
from api.gateway.turn import Turn
from api.gateway.wish import Wish
from api.store.agents import Agents
from api.store.copies import message_id
from api.store.errors import SessionBusy
from api.store.records import Agent, Message, Session
from api.store.sessions import Sessions
from api.streaming import check_stream, owned
from api.underlay import of_agent
from inference import (
    BadRequest,
    DeadlineExceeded,
    GenerationRequest,
    InferenceError,
    Models,
)
from inference import Message as Said


class Turns:
    """The turns of a server, of which a session has one at a time."""

    def __init__(self, models: Models, sessions: Sessions, agents: Agents) -> None:
        self._models = models
        self._sessions = sessions
        self._agents = agents
        self._of: dict[str, Place] = {}
        self._marking: set[asyncio.Task[None]] = set()

    async def begin(self, wish: Wish, tenant: str, tell: Tell) -> Turn:
        """A turn that is stored.

        Raises UnknownSession, UnknownMessage, SessionBusy, TooManyRequests, TurnStopped,
        StoreFailed, StoreFull, and as `Models.generate`.
        """
        session = await self._sessions.find(tenant, wish.session)
        with self._claimed(session.id, tenant, wish.most) as place, place.opening():
            turn = place.turn = await self._begun(session, wish, tenant, tell)
            turn.task.add_done_callback(lambda _: self._of.pop(session.id))
            return turn

    async def _begun(self, session: Session, wish: Wish, tenant: str, tell: Tell) -> Turn:
        began = monotonic()
        async with _deadline(wish.request.deadline):
            prompt, new = await self._prompt(session, wish, tenant)
            meant = of_agent(prompt.request, prompt.agent)
            check_stream(self._models, meant, stream=wish.stream)
            if _compacts(session, prompt.agent):
                keep = partial(self._sessions.summarise, session.id)
                prompt = await compaction.fitted(self._models, prompt, tell, keep)
        return await self._turn(session, prompt, new, wish, monotonic() - began)

    async def _turn(
        self, session: Session, prompt: Prompt, new: list[Message], wish: Wish, passed: float
    ) -> Turn:
        """The turn, once its first event is there and it is stored."""
        asked = prompt.asked()
        left = asked.deadline and max(1e-3, asked.deadline - passed)
        events = self._models.generate(replace(asked, deadline=left))
        try:
            first = await anext(events)
            agent = prompt.agent
            model = agent.name if agent else self._models.name_of(asked.model)
            answer = _answer(prompt, wish.answer, model)
            await self._store(session, new, answer)
        except BaseException:
            await events.aclose()
            raise
        stored = Stored(session.id, answer.id, tuple(message.id for message in new), model)
        return Turn(first, events, answer, stored, self._sessions.save)

    async def _store(self, session: Session, new: list[Message], answer: Message) -> None:
        """Who is cancelled meanwhile leaves no answer behind that nobody writes."""
        storing = asyncio.create_task(self._sessions.begin(session, new, answer))
        try:
            await asyncio.shield(storing)
        except asyncio.CancelledError:
            marking = asyncio.create_task(self._mark_stopped(storing, answer))
            self._marking.add(marking)
            marking.add_done_callback(self._marking.discard)
            await asyncio.shield(marking)
            raise

    async def _mark_stopped(self, storing: asyncio.Task[None], answer: Message) -> None:
        with suppress(InferenceError):
            await storing
            await self._sessions.save(msgspec.structs.replace(answer, state="stopped"))

    async def once(self, request: GenerationRequest, tenant: str, stream: bool) -> Turn:
        """A turn that nothing is stored of, as a `stream` or whole. Raises as `Models.generate`."""
        [request] = owned((request,), tenant)
        request = of_agent(request, self._agents.named(request.model, tenant))
        check_stream(self._models, request, stream=stream)
        events = self._models.generate(request)
        first = await anext(events)
        return Turn(first, events, Message(id=request.id, parent=None, role="assistant"))

    def running(self, session: str, tenant: str) -> Turn | None:
        """The turn of a session that runs now; None also for those of others."""
        place = self._place(session, tenant)
        return place.turn if place else None

    async def stop(self, session: str, tenant: str) -> bool:
        """End the turn of a session, even if it only waits; whether there was one."""
        place = self._place(session, tenant)
        if place is None:
            return False
        await place.stop()
        return True

    async def tidy(self, session: str) -> None:
        """Cut the answers of a session that are stored as being written, if nobody writes there."""
        left = await self._sessions.running(session)
        if session not in self._of:  # one that was found before somebody began is not theirs
            await self._sessions.cut(left)

    def answers(self) -> dict[str, str]:
        """The sessions in which an answer is being written, and which."""
        return {id: place.turn.asked.id for id, place in self._of.items() if place.turn}

    def __len__(self) -> int:
        return len(self._of)

    async def close(self) -> None:
        """Wait until the ends of all turns are stored; the models are closed already."""
        turns = [place.turn.task for place in self._of.values() if place.turn]
        if tasks := [*turns, *self._marking]:
            await asyncio.wait(tasks)

    def _place(self, session: str, tenant: str) -> Place | None:
        place = self._of.get(session)
        return place if place and place.tenant == tenant else None

    async def _prompt(
        self, session: Session, wish: Wish, tenant: str
    ) -> tuple[Prompt, list[Message]]:
        """What is asked, and the messages in it that are new."""
        await self._sessions.cut(await self._sessions.running(session.id))  # none is ours yet
        parent = session.head if wish.parent is None else wish.parent
        before = await self._sessions.path(session.id, parent) if parent else []
        new = _new(wish.request.messages, before[-1].id if before else None)
        if not new and not (before and before[-1].role in ("user", "tool")):
            raise BadRequest("Only what was said can be answered again.", "parent")
        named = replace(wish.request, model=wish.request.model or session.model or None)
        [request] = owned((named,), tenant)
        path = (*before, *new)
        summary = latest(await self._sessions.summaries(session.id), path)
        agent = self._agents.named(request.model, tenant)
        return Prompt(request, path, summary, session.settings, agent), new

    @contextmanager
    def _claimed(self, session: str, tenant: str, most: int | None) -> Iterator[Place]:
        """A place for a turn, which is kept if there is one in it by then.

        They are counted for their key as well: clients may be gone, and count no more.
        """
        if session in self._of:
            raise SessionBusy
        if most and sum(place.tenant == tenant for place in self._of.values()) >= most:
            raise TooManyRequests(f"This key may have {most} answers running at the same time.")
        place = self._of[session] = Place(tenant)
        try:
            yield place
        finally:
            if place.turn is None:
                del self._of[session]


def _compacts(session: Session, agent: Agent | None) -> bool:
    """Whether long conversations are summed up: as the session says, else its agent."""
    said = session.settings.compaction
    if said is None and agent:
        said = agent.settings.compaction
    return said is not False


@asynccontextmanager
async def _deadline(seconds: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        passed = f"The deadline of {seconds:.3g} seconds has passed"
        raise DeadlineExceeded(f"{passed} while earlier messages were summed up.") from None


def _new(said: tuple[Said, ...], parent: str | None) -> list[Message]:
    """Each after the one before it."""
    ids = [message_id() for _ in said]
    return [
        Message(
            id=id,
            parent=before,
            role=one.role,
            content=one.content,
            answers=one.answers,
            created=time(),
        )
        for id, before, one in zip(ids, (parent, *ids), said, strict=False)
    ]


def _answer(prompt: Prompt, id: str, model: str) -> Message:
    return Message(
        id=id,
        parent=prompt.path[-1].id,
        role="assistant",
        state="running",
        model=model,
        created=time(),
    )
