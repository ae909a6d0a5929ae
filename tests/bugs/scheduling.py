"""Bugs of the step loop: who is computed when, in which cells, with which logits."""

from tests.bugs.bug import SIMULATION, Bug

SCHEDULER = "inference/scheduler.py"
CACHE = "inference/kv_cache.py"
TREE = "inference/prefix_tree.py"
ENGINE = "inference/engine.py"
LIKELY = "tests/test_logprobs.py"

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
    Bug("likely is what may be drawn", ENGINE, "row.copy() if ledger else row", "row", LIKELY),
)
