"""The messages of a session as a tree: branches, and what hangs together. Pure."""

from collections.abc import Iterable, Sequence

from api.store.errors import UnknownMessage
from api.store.records import Message
from inference import BadRequest


def path_to(messages: Iterable[Message], id: str, field: str = "parent") -> list[Message]:
    """The branch that ends with the message `id`, its root first.

    Raises UnknownMessage, which names `field`, if there is no such message.
    """
    known = {message.id: message for message in messages}
    path: list[Message] = []
    found = known.get(id)
    if found is None:
        raise UnknownMessage(field)
    while found is not None:
        path.append(found)
        found = known.get(found.parent or "")
    return path[::-1]


def check(messages: Sequence[Message]) -> None:
    """Raises BadRequest unless every message stands after the one it belongs to, as in a session:
    then all hang together, and none in a circle."""
    seen: set[str] = set()
    for number, message in enumerate(messages):
        if message.id in seen:
            place = f"messages.{number}.id"
            raise BadRequest(f"{place}: Another message has this id already.", place)
        if message.parent is not None and message.parent not in seen:
            place = f"messages.{number}.parent"
            raise BadRequest(f"{place}: No message before this one has that id.", place)
        seen.add(message.id)


def running(messages: Iterable[Message]) -> str | None:
    """The answer that is being written."""
    return next((message.id for message in messages if message.state == "running"), None)
