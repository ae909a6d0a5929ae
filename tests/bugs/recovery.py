"""Bugs between the server and its workers: what is owed, and what becomes of it."""

from tests.bugs.bug import Bug

JOURNAL = "inference/journal.py"
REPLICA = "inference/replica.py"
POOL = "inference/pool.py"
CHOICE = "inference/choice.py"
WORKER = "inference/worker.py"
INBOX = "inference/inbox.py"

BUGS = (
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
        "            self._on_trial = None\n\n    def where",
        "            pass\n\n    def where",
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
        CHOICE,
        "one.index if isinstance(one, Delta) else None",
        "0 if isinstance(one, Delta) else None",
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
    Bug("slow readers get less", CHOICE, "[*chain(*(one.logprobs for one in run))]", "[]"),
)
