"""A conversation as another one, with ids of its own. Pure but for the ids, which are random."""

from collections.abc import Mapping
from secrets import token_hex

from msgspec.structs import replace

from api.store.errors import SessionBusy
from api.store.records import Conversation, Message, Summary
from api.store.tree import path_to, running


def session_id() -> str:
    return f"chat_{token_hex(12)}"


def message_id() -> str:
    return f"msg_{token_hex(12)}"


def branch_of(whole: Conversation, message: str) -> Conversation:
    """Its messages up to one, which becomes the head.

    Raises UnknownMessage, and SessionBusy if one of them is being written.
    """
    path = path_to(whole.messages, message, "message_id")
    if running(path):
        raise SessionBusy
    ids = {step.id for step in path}
    summaries = [summary for summary in whole.summaries if summary.upto in ids]
    return Conversation(replace(whole.session, head=message), path, summaries)


def renewed(whole: Conversation, now: float) -> Conversation:
    """The same under new ids, last changed `now`."""
    ids = {message.id: message_id() for message in whole.messages}
    session = replace(
        whole.session, id=session_id(), head=ids.get(whole.session.head or ""), updated=now
    )
    messages = [_message(message, ids) for message in whole.messages]
    return Conversation(session, messages, [_summary(one, ids) for one in whole.summaries])


def _message(message: Message, ids: Mapping[str, str]) -> Message:
    return replace(message, id=ids[message.id], parent=message.parent and ids[message.parent])


def _summary(summary: Summary, ids: Mapping[str, str]) -> Summary:
    return replace(summary, upto=ids[summary.upto])
