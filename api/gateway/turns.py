"""The answers that are being made in sessions: begun, found again, waited for.

A turn of a session is stored before anybody is told of it, and goes on when its client is gone.
What was refused has left nothing behind. Knows no wire shape.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import time

import msgspec

from api.errors import TooManyRequests
from api.gateway import compaction
from api.gateway.compaction import Tell
from api.gateway.events import Stored
from api.gateway.prompt import Prompt, latest
from api.gateway.turn import Turn
from api.gateway.wish import Wish, message_id
from api.keys import CONCURRENT
from api.store.agents import Agents
from api.store.errors import SessionBusy
from api.store.records import Message, Session
from api.store.sessions import Sessions
from api.store.tree import path_to
from api.store.underlay import laid_under
from api.streaming import owned
from inference import BadRequest, GenerationRequest, Models
from inference import Message as Said


@dataclass(slots=True)
class _Place:
    """Of a turn that is about to begin, or runs."""

    tenant: str
    turn: Turn | None = None


class Turns:
    """The turns of a server, of which a session has one at a time."""

    def __init__(self, models: Models, sessions: Sessions, agents: Agents) -> None:
        self._models = models
        self._sessions = sessions
        self._agents = agents
        self._of: dict[str, _Place] = {}

    async def begin(self, wish: Wish, tenant: str, tell: Tell) -> Turn:
        """A turn that is stored.

        Raises UnknownSession, UnknownMessage, SessionBusy, StoreFailed, StoreFull, and as
        `Models.generate`.
        """
        session = await self._sessions.find(tenant, wish.session)
        with self._claimed(session.id, tenant) as place:
            prompt, new = await self._prompt(session, wish, tenant)
            if self._compacts(session, prompt.request, tenant):
                keep = partial(self._sessions.summarise, session.id)
                prompt = await compaction.fitted(self._models, prompt, tell, keep)
            events = self._models.generate(prompt.asked())
            try:
                first = await anext(events)
                answer = _answer(prompt, wish.answer, self._name_of(prompt.request, tenant))
                await self._store(session, new, answer)
            except BaseException:
                await events.aclose()
                raise
            ids = tuple(message.id for message in new)
            stored = Stored(session.id, answer.id, ids, answer.model)
            place.turn = Turn(first, events, answer, stored, self._sessions.save)
            place.turn.task.add_done_callback(lambda _: self._of.pop(session.id))
            return place.turn

    async def _store(self, session: Session, new: list[Message], answer: Message) -> None:
        """Who is cancelled meanwhile leaves no answer behind that nobody writes."""
        storing = asyncio.create_task(self._sessions.begin(session, new, answer))
        try:
            await asyncio.shield(storing)
        except asyncio.CancelledError:
            await asyncio.wait({storing})
            if storing.exception() is None:
                await self._sessions.save(msgspec.structs.replace(answer, state="stopped"))
            raise

    async def once(self, request: GenerationRequest, tenant: str) -> Turn:
        """A turn that nothing is stored of. Raises as `Models.generate`."""
        [request] = owned((request,), tenant)
        request = self._agents.apply(request, tenant)
        events = self._models.generate(request)
        first = await anext(events)
        return Turn(first, events, Message(id=request.id, parent=None, role="assistant"))

    def running(self, session: str, tenant: str) -> Turn | None:
        """The turn of a session that runs now; None also for those of others."""
        place = self._of.get(session)
        return place.turn if place and place.tenant == tenant else None

    async def close(self) -> None:
        """Wait until the ends of all turns are stored; the models are closed already."""
        if tasks := [place.turn.task for place in self._of.values() if place.turn]:
            await asyncio.wait(tasks)

    async def _prompt(
        self, session: Session, wish: Wish, tenant: str
    ) -> tuple[Prompt, list[Message]]:
        """What is asked, and the messages in it that are new."""
        messages = await self._sessions.messages(session.id)
        parent = session.head if wish.parent is None else wish.parent
        before = path_to(messages, parent) if parent else []
        new = _new(wish.request.messages, before[-1].id if before else None)
        if not new and not (before and before[-1].role in ("user", "tool")):
            raise BadRequest("Only what was said can be answered again.", "parent")
        named = replace(wish.request, model=wish.request.model or session.model or None)
        [request] = owned((named,), tenant)
        path = (*before, *new)

        def lay(asked: GenerationRequest) -> GenerationRequest:
            return self._agents.apply(laid_under(asked, session.settings), tenant)

        summary = latest(await self._sessions.summaries(session.id), path)
        return Prompt(request, path, summary, lay), new

    def _compacts(self, session: Session, request: GenerationRequest, tenant: str) -> bool:
        """Whether long conversations are summed up: as the session says, else its agent."""
        said = session.settings.compaction
        if said is None and (agent := self._agents.named(request.model, tenant)):
            said = agent.settings.compaction
        return said is not False

    def _name_of(self, request: GenerationRequest, tenant: str) -> str:
        """What the model is called that a request names: as it is stored, if that is an agent."""
        agent = self._agents.named(request.model, tenant)
        return agent.name if agent else self._models.name_of(request.model)

    @contextmanager
    def _claimed(self, session: str, tenant: str) -> Iterator[_Place]:
        """A place for a turn, which is kept if there is one in it by then.

        They are counted for their key as well: clients may be gone, and count no more.
        """
        if session in self._of:
            raise SessionBusy
        if tenant and sum(place.tenant == tenant for place in self._of.values()) >= CONCURRENT:
            raise TooManyRequests(f"This key may have {CONCURRENT} answers of sessions at a time.")
        place = self._of[session] = _Place(tenant)
        try:
            yield place
        finally:
            if place.turn is None:
                del self._of[session]


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
