"""The bugs that `tests.seeded_bugs` puts into the project, one at a time."""

from dataclasses import dataclass
from pathlib import Path

SIMULATION = "tests/test_simulation.py"


@dataclass(frozen=True, slots=True)
class Bug:
    """`old` stands exactly once in `file`, and `tests` are those to notice `new` in its place."""

    name: str
    file: str
    old: str
    new: str
    tests: str = SIMULATION

    def text(self, root: Path) -> str:
        """The file with the bug in it. Raises ValueError where the old text is not there."""
        text = (root / self.file).read_text()
        if text.count(self.old) != 1:
            times = text.count(self.old)
            raise ValueError(f"{self.name}: {self.old!r} is {times} times in {self.file}, not once")
        return text.replace(self.old, self.new)


SCHEDULER, CACHE, TREE = (
    f"inference/{name}.py" for name in ("scheduler", "kv_cache", "prefix_tree")
)
JOURNAL, REPLICA, POOL = (f"inference/{name}.py" for name in ("journal", "replica", "pool"))
WORKER, INTAKE, SEQUENCE = (f"inference/{name}.py" for name in ("worker", "intake", "sequence"))
PARSER, HOLDBACK, INBOX = (f"inference/{name}.py" for name in ("parser", "holdback", "inbox"))
ENGINE = "inference/engine.py"
PROMPTS, LIKELY = "tests/test_prompt_logprobs.py", "tests/test_logprobs.py"

BUGS = (
    Bug(
        "a hang-up in the queue is ignored",
        SCHEDULER,
        "[seq for seq in self.waiting + self.running if seq.id == id]",
        "[seq for seq in self.running if seq.id == id]",
    ),
    Bug(
        "a hang-up ends one choice only",
        SCHEDULER,
        "[seq for seq in self.waiting + self.running if seq.id == id]",
        "[seq for seq in self.waiting + self.running if seq.id == id][:1]",
    ),
    Bug(
        "text that is held is dropped at the end",
        SEQUENCE,
        "text += self.text.finish()",
        "pass",
    ),
    Bug(
        "who has ended keeps its slot",
        SCHEDULER,
        "        self._cache.release(seq)\n",
        "",
    ),
    Bug(
        "nobody is told of a deadline",
        SCHEDULER,
        "progress, self._expired = self._expired, []",
        "progress, self._expired = [], []",
    ),
    Bug(
        "a deadline in the queue is ignored",
        SCHEDULER,
        "self.waiting + self.running if seq.deadline <= now",
        "self.running if seq.deadline <= now",
        "tests/test_scheduler.py -k deadline",
    ),
    Bug(
        "a step that was interrupted is booked",
        SCHEDULER,
        "        if result.aborted:\n            return []\n",
        "",
    ),
    Bug(
        "who is preempted is forgotten",
        SCHEDULER,
        "        insort(self.waiting, victim, key=lambda seq: seq.rank)\n",
        "",
        "tests/test_kv_cache.py",
    ),
    Bug(
        "the oldest is preempted",
        SCHEDULER,
        "(seq.priority, -seq.arrived)",
        "(seq.priority, seq.arrived)",
        "tests/test_kv_cache.py",
    ),
    Bug(
        "an answer is a token too long",
        SEQUENCE,
        "len(self.tokens) < self.limit",
        "len(self.tokens) <= self.limit",
    ),
    Bug(
        "cells are not trimmed",
        CACHE,
        "        self.moves.append(Keep(id, length))\n",
        "",
    ),
    Bug(
        "an id is freed twice",
        CACHE,
        "        self._free.append(id)\n",
        "        self._free.append(id)\n        self._free.append(id)\n",
        f"tests/test_kv_cache.py {SIMULATION}",
    ),
    Bug(
        "a prompt is taken from the cache to its last token",
        CACHE,
        "self.tree.match(seq.shareable, seq.salt)",
        "self.tree.match(seq.tokens, seq.salt)",
    ),
    Bug(
        "prefixes are shared across salts",
        CACHE,
        "self.tree.match(seq.shareable, seq.salt)",
        "self.tree.match(seq.shareable, next(iter(self.tree._roots), ''))",
    ),
    Bug(
        "host memory is shared across salts",
        CACHE,
        "self._host.match(seq.shareable, seq.salt)",
        "self._host.match(seq.shareable, next(iter(self._host._tree._roots), ''))",
    ),
    Bug(
        "a copy is booked and not made",
        CACHE,
        "        self.moves.append(Copy(source, target, length))\n",
        "",
    ),
    Bug(
        "cells are restored into a stream that is to be copied",
        CACHE,
        " and slot not in self._to_be_copied()",
        "",
        "tests/test_kv_cache.py",
    ),
    Bug(
        "the unified cache is overfilled",
        CACHE,
        "        held = self.tree.held(range(self.slots)) if "
        "self.tree.size + cells > self._cells else 0\n"
        "        if held + cells > self._cells:\n            return False\n",
        "        if not self._parked:\n            return True\n",
    ),
    Bug(
        "the last match is taken for the longest",
        TREE,
        "best = max(best, found, key=lambda pair: pair[1])",
        "best = found",
        "tests/test_prefix_tree.py",
    ),
    Bug(
        "a match is a token too long",
        TREE,
        "found = child, depth + run\n",
        "found = child, depth + run + (run < len(child.tokens))\n",
    ),
    Bug(
        "cells that nobody holds are counted",
        TREE,
        "            self.size -= len(node.tokens)\n",
        "",
    ),
    Bug(
        "blame is forgotten",
        JOURNAL,
        "self.blame += blame",
        "self.blame = blame",
    ),
    Bug(
        "what was said is said again",
        JOURNAL,
        "                part.tokens += tokens\n",
        "",
    ),
    Bug(
        "one choice that gets further clears the others",
        JOURNAL,
        "        if not self.stuck:\n",
        "        if True:\n",
        "tests/test_journal.py",
    ),
    Bug(
        "a choice that has ended is computed again",
        JOURNAL,
        "                self.said[index].ended = True\n",
        "",
    ),
    Bug(
        "a whole answer is begun again while its client is slow",
        JOURNAL,
        "if entry.answer_is_whole(answer):",
        "if False:",
    ),
    Bug(
        "a trial never ends",
        JOURNAL,
        "elif entry is self._on_trial and not entry.blame:",
        "elif False:",
        "tests/test_journal.py",
    ),
    Bug(
        "a suspect that hangs up is waited for",
        JOURNAL,
        "            self._on_trial = None\n\n    def strangers",
        "            pass\n\n    def strangers",
        "tests/test_journal.py",
    ),
    Bug(
        "neighbours are given up for the guilty one",
        JOURNAL,
        "if alone and entry.blame >= GIVEN_UP",
        "if entry.blame >= GIVEN_UP",
        "tests/test_journal.py",
    ),
    Bug(
        "suspects are not tried alone",
        JOURNAL,
        "self._on_trial = entry if entry.blame else None",
        "self._on_trial = None",
    ),
    Bug(
        "who was read in when the worker died is no suspect",
        JOURNAL,
        " + reading[:1]",
        "",
    ),
    Bug(
        "what a dead worker owed is forgotten",
        REPLICA,
        "guilty = self._journal.crash(blame)",
        "guilty = []",
    ),
    Bug(
        "who is given up is not told",
        REPLICA,
        "            entry.reader.put_nowait("
        "Rejected(entry.submit.id, Poisonous.code, _POISONOUS))\n",
        "            pass\n",
    ),
    Bug(
        "nobody is told that the server closes",
        REPLICA,
        "        self._abandon(NotReady.code, self.detail)\n",
        "",
    ),
    Bug(
        "a step loop that hangs is not noticed",
        REPLICA,
        "life.computing = life.computing + 1 if computing else 0",
        "life.computing = 0",
    ),
    Bug(
        "an intake that hangs is not noticed",
        REPLICA,
        "life.reading = life.reading + 1 if reading else 0",
        "life.reading = 0",
    ),
    Bug(
        "who came while there was no worker is not handed over",
        REPLICA,
        "            self._route(report, life)\n            self._hand_over()\n",
        "            self._route(report, life)\n",
    ),
    Bug(
        "the worker is not told of a hang-up",
        REPLICA,
        "if cancel and self._life is not None:",
        "if False:",
    ),
    Bug(
        "a frame that cannot be read ends the story",
        REPLICA,
        "        except ValueError as error:\n",
        "        except KeyError as error:\n",
    ),
    Bug(
        "an end is lost",
        POOL,
        "                            for event in choices[end.index].end(end):\n"
        "                                yield event\n",
        "",
    ),
    Bug(
        "texts of two choices are joined",
        POOL,
        " and answer.index == last.index",
        "",
    ),
    Bug(
        "the queue has no bound",
        POOL,
        "if self._live + n > self._bound:",
        "if False:",
        "tests/test_pool.py -k full_queue",
    ),
    Bug(
        "the queue never empties",
        POOL,
        "            self._live -= request.n\n",
        "",
    ),
    Bug(
        "a tool call that is none is lost",
        PARSER,
        "return [call or text]",
        "return [call] if call else []",
        "tests/test_parser.py",
    ),
    Bug(
        "text that is held is dropped by the parser",
        PARSER,
        "pieces = self._emit(held)",
        "pieces = self._emit('')",
        "tests/test_parser.py",
    ),
    Bug(
        "a marker but its last character is let through",
        HOLDBACK,
        "range(min(longest, len(self._held)), 0, -1)",
        "range(min(longest - 1, len(self._held)), 0, -1)",
        "tests/test_holdback.py",
    ),
    Bug(
        "the last marker wins",
        HOLDBACK,
        "min(found)",
        "max(found)",
        "tests/test_holdback.py",
    ),
    Bug(
        "tokens are reported twice",
        WORKER,
        "    seq.told = len(seq.tokens)\n",
        "",
    ),
    Bug(
        "one hang-up interrupts everybody's step",
        INBOX,
        "self._interrupt(not self._waiting)",
        "self._interrupt(True)",
        "tests/test_worker.py",
    ),
    Bug(
        "a step that was interrupted once is interrupted for ever",
        INBOX,
        "            self._interrupt(False)\n",
        "",
        "tests/test_worker.py",
    ),
    Bug(
        "a prompt that is all there is no suspect",
        WORKER,
        "*(chunk for chunk in plan.decodes if not chunk.seq.begun)",
        "",
    ),
    Bug(
        "the other choices of a request that failed go on",
        WORKER,
        "    for id in faults:\n        scheduler.cancel(id)\n",
        "",
    ),
    Bug(
        "text that is held when a worker dies is lost",
        SEQUENCE,
        "            self.text.feed(pieces[token])\n",
        "            pass\n",
    ),
    Bug(
        "a choice that has ended comes back after a crash",
        INTAKE,
        "return [seq for seq in sequences if seq.index not in ended]",
        "return sequences",
    ),
    Bug(
        "the salt of a request is lost",
        INTAKE,
        "salt=submit.salt",
        'salt=""',
        "tests/test_worker.py",
    ),
    Bug(
        "a deadline begins anew with every worker",
        INTAKE,
        "time.monotonic() - submit.waited",
        "time.monotonic()",
        "tests/test_worker.py",
    ),
    Bug(
        "guesses run past the end of the thoughts",
        SEQUENCE,
        "room = min(room, self.budget.room)",
        "pass",
        "tests/test_budget.py",
    ),
    Bug(
        "thoughts begin anew with every worker",
        SEQUENCE,
        "            self.budget = self.budget and self.budget.after(token)\n        if self.guide",
        "        if self.guide",
        "tests/test_budget.py",
    ),
    Bug(
        "a think block that is closed is bounded still",
        "inference/budget.py",
        "return None if token == self.tags.close else replace(self, left=self.left - 1)",
        "return replace(self, left=self.left - 1)",
        "tests/test_budget.py",
    ),
    Bug(
        "arguments are written as the client wrote them",
        "inference/template.py",
        "return value if isinstance(value, dict) else text",
        "return text",
        "tests/test_renderings.py",
    ),
    Bug(
        "calls are watched in thoughts",
        "inference/guide.py",
        "        elif self._thinking:\n",
        "        elif False:\n",
        "tests/test_grammar.py",
    ),
    Bug(
        "the tail of the arguments is one of them",
        PARSER,
        '_ARGUMENTS, _END_ARGUMENTS = \', "arguments": \', f"}}\\n{_END_CALL}"',
        '_ARGUMENTS, _END_ARGUMENTS = \', "arguments": \', f"\\n{_END_CALL}"',
        "tests/test_parser.py",
    ),
    Bug(
        "an answer that goes on says again what was begun",
        PARSER,
        "self._known = len(text) - start",
        "self._known = 0",
        "tests/test_parser.py",
    ),
    Bug(
        "thoughts that are cut off are not counted",
        "inference/budget.py",
        "return count if inside else 0",
        "return 0",
        "tests/test_budget.py",
    ),
    Bug(
        "calls are lost on the way to the next turn",
        "api/openai/responses/create.py",
        "output = {item.id: msgspec.json.encode(item) for item in response.output}",
        "output = {item.id: msgspec.json.encode(item) for item in response.output[:1]}",
        "tests/test_responses_store.py",
    ),
    Bug(
        "whoever stores much takes the room of others",
        "api/openai/responses/store.py",
        "max(self._bytes, key=self._bytes.__getitem__)",
        "next(iter(self._kept))[0]",
        "tests/test_responses_store.py",
    ),
    Bug(
        "what is used is the first to go",
        "api/openai/responses/store.py",
        "        kept, _ = self._kept.pop((tenant, id))\n        self._kept",
        "        kept, _ = self._kept[tenant, id]\n        self._kept",
        "tests/test_responses_store.py",
    ),
    Bug(
        "what is cut off passes for whole",
        "api/openai/responses/encoder.py",
        'frames += self._close("incomplete" if cut else "completed")',
        'frames += self._close("completed")',
        "tests/test_responses_encoder.py",
    ),
    Bug("a prompt that is there has no logits", SEQUENCE, "[: self.unscored]", "[:-1]", PROMPTS),
    Bug("likely is what may be drawn", ENGINE, "row.copy() if ledger else row", "row", LIKELY),
    Bug("slow readers get less", POOL, "last.logprobs + answer.logprobs", "answer.logprobs"),
)
