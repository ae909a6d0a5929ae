"""Bugs in stored conversations, for `tests.seeded_bugs`."""

from tests.bugs.bug import Bug

TURN, TURNS = "api/gateway/turn.py", "api/gateway/turns.py"
PLACE = "api/gateway/place.py"
COMPACTION, PROMPT = "api/gateway/compaction.py", "api/gateway/prompt.py"
SOCKET, STORED = "api/gateway/websocket.py", "api/store/sessions.py"
ALONE, AMONG = "tests/test_turn.py", "tests/test_turns.py"
CHATTED = "tests/test_gateway_chat.py"
DATABASE, SEARCH = "api/store/database.py", "api/store/search.py"
SIZE, SOUGHT = "tests/test_store_size.py", "tests/test_store_search.py"
LONG, SPOKEN = "tests/test_compaction.py", "tests/test_websocket.py"

BUGS = (
    Bug(
        "a turn is told of before it is stored",
        TURNS,
        "            await self._store(session, new, answer)\n",
        "            asyncio.create_task(self._store(session, new, answer))\n",
        SPOKEN,
    ),
    Bug(
        "who stops a turn before it has begun waits for ever",
        TURN,
        "        if self.stopped:  # before it had begun\n"
        "            self._add(self._end())\n            return\n",
        "",
        ALONE,
    ),
    Bug(
        "followers wait for ever where the end cannot be stored",
        TURN,
        "            try:\n                await self._save_at_last(self._outcome())\n"
        "            finally:\n                self._over = True\n                self._tell()\n",
        "            await self._save_at_last(self._outcome())\n"
        "            self._over = True\n            self._tell()\n",
        ALONE,
    ),
    Bug(
        "the end of an answer is stored once or never",
        TURN,
        "            await asyncio.sleep(pause)\n            await self._save(message)\n",
        "            return\n",
        ALONE,
    ),
    Bug(
        "sessions are answered whole by a model that only streams",
        TURNS,
        "            check_stream(self._models, meant, stream=wish.stream)\n",
        "",
        CHATTED,
    ),
    Bug(
        "a connection is answered whole by a model that only streams",
        TURNS,
        "        check_stream(self._models, request, stream=stream)\n",
        "",
        CHATTED,
    ),
    Bug(
        "an answer is stored only at its end",
        TURN,
        'await self._save(self._draft.message("running"))',
        "pass",
        ALONE,
    ),
    Bug(
        "who hangs up ends an answer that is stored",
        SOCKET,
        "            if not turn.stored:\n                await turn.stop()\n",
        "            await turn.stop()\n",
        SPOKEN,
    ),
    Bug(
        "who hangs up lets an answer run that nobody will see",
        SOCKET,
        "            if not turn.stored:\n                await turn.stop()\n",
        "            pass\n",
        SPOKEN,
    ),
    Bug(
        "a turn that waits is not stopped",
        PLACE,
        "            self._opening.cancel()\n",
        "            pass\n",
        AMONG,
    ),
    Bug(
        "anybody can stop and follow the turns of others",
        TURNS,
        "return place if place and place.tenant == tenant else None",
        "return place",
        AMONG,
    ),
    Bug(
        "answers without a client do not count for their key",
        TURNS,
        "        if most and sum(",
        "        if not most and sum(",
        AMONG,
    ),
    Bug(
        "an answer that nobody writes stays as running",
        "api/gateway/sessions.py",
        "    if tree.running(whole.messages):\n",
        "    if False:\n",
        AMONG,
    ),
    Bug(
        "who looks at an answer that is being written cuts it",
        TURNS,
        "        if session not in self._of:",
        "        if True:",
        SPOKEN,
    ),
    Bug(
        "summaries stand for messages that were never stored",
        STORED,
        "    if _is_here(to, session, summary.upto):\n",
        "    if True:\n",
        "tests/test_store_sessions.py",
    ),
    Bug(
        "a server that stops does not wait for answers without a client",
        "api/server.py",
        "not (self.server_state.tasks or self._busy())",
        "not self.server_state.tasks",
        AMONG,
    ),
    Bug(
        "what is wrong meanwhile ends the answer",
        SOCKET,
        "ends=not self._busy",
        "ends=True",
        AMONG,
    ),
    Bug(
        "the summary of another branch is shown",
        PROMPT,
        "[summary for summary in summaries if summary.upto in places]",
        "[*summaries]",
        LONG,
    ),
    Bug(
        "facts are forgotten with each summary",
        COMPACTION,
        "        facts=_bounded((*facts, *_facts(found)), scale),\n",
        "        facts=_bounded(_facts(found), scale),\n",
        LONG,
    ),
    Bug(
        "the last facts push out the first ones",
        COMPACTION,
        "    return (*kept[:first], *kept[last:])\n",
        "    return tuple(kept[last:])\n",
        LONG,
    ),
    Bug(
        "a summary is kept only when all are made",
        COMPACTION,
        "        await keep(summary)\n        prompt, begun = ",
        "        if end == place:\n            await keep(summary)\n        prompt, begun = ",
        LONG,
    ),
    Bug(
        "long calls of tools are not counted",
        COMPACTION,
        'return " ".join((message.content, message.reasoning, *calls))',
        "return message.content",
        LONG,
    ),
    Bug(
        "conversations are summed up though nobody wants it",
        TURNS,
        "    return said is not False\n",
        "    return True\n",
        "tests/test_long_session.py",
    ),
    Bug(
        "a deadline begins anew with the answer",
        TURNS,
        "left = asked.deadline and max(1e-3, asked.deadline - passed)",
        "left = asked.deadline",
        AMONG,
    ),
    Bug(
        "the same session may have two answers at a time",
        TURNS,
        "        if session in self._of:\n            raise SessionBusy\n",
        "",
        SPOKEN,
    ),
    Bug(
        "an edited message is said at the end",
        TURNS,
        "session.head if wish.parent is None else wish.parent",
        "session.head",
        SPOKEN,
    ),
    Bug(
        "a branch may be of any size",
        STORED,
        "    add_summaries(to, copy.session.id, copy.summaries)\n"
        "    _check_size(to, copy.session.id)\n",
        "    add_summaries(to, copy.session.id, copy.summaries)\n",
        SIZE,
    ),
    Bug(
        "what others have stored counts as well",
        STORED,
        "FROM sizes AS all_of WHERE all_of.tenant = sizes.tenant",
        "FROM sizes AS all_of",
        SIZE,
    ),
    Bug(
        "answers do not count for what a key may store",
        "api/store/migrations.py",
        "CREATE TRIGGER message_changed AFTER UPDATE ON",
        "CREATE TRIGGER message_changed AFTER UPDATE OF id ON",
        SIZE,
    ),
    Bug(
        "what is deleted stays in the file",
        DATABASE,
        "secure_delete = ON",
        "secure_delete = OFF",
        "tests/test_store.py",
    ),
    Bug(
        "a search goes on though its client is gone",
        DATABASE,
        "            left.set()\n",
        "            pass\n",
        SOUGHT,
    ),
    Bug(
        "all else waits for a search",
        DATABASE,
        "_run(self._searching, self._found, work, left)",
        "_run(self._reading, self._found, work, left)",
        SOUGHT,
    ),
    Bug(
        "one key's searches go before those of others",
        STORED,
        "self._searching[tenant]:",
        "asyncio.Lock():",
        SOUGHT,
    ),
    Bug(
        "all that a message says is looked at together",
        SEARCH,
        "if content.isascii() else _PIECE",
        "if content else _PIECE",
        SOUGHT,
    ),
    Bug(
        "a search may take for ever",
        DATABASE,
        " or monotonic() > end\n",
        "\n",
        SOUGHT,
    ),
    Bug(
        "what stands across two pieces of a text is not found",
        SEARCH,
        "_ACCENTED * (len(needle) + AFTER)\n",
        "AFTER\n",
        SOUGHT,
    ),
)
