"""Bugs on purpose in how several models share one server; `tests.seeded_bugs` puts them in."""

from tests.bugs.bug import Bug

SEATS = "inference/seats.py"
MODELS = "tests/test_models.py"

OPERATOR = "tests/test_operator.py"

BUGS = (
    Bug(
        "a model is not sent away while it loads",
        "inference/models.py",
        "            self._seats.rest(seat)\n",
        "            pass\n",
        MODELS,
    ),
    Bug(
        "an operator ends everybody's requests",
        "inference/models.py",
        "lambda asked: asked.id == id",
        "lambda asked: True",
        OPERATOR,
    ),
    Bug(
        "who waits for a model cannot be ended",
        SEATS,
        "return running + sum(_tell(waiter, why) for waiter in waiting)",
        "return running",
        OPERATOR,
    ),
    Bug(
        "a request that is ended is computed on",
        "inference/replica.py",
        "            self.finish(entry.submit.id, cancel=True)\n        return len(found)",
        "            self.finish(entry.submit.id, cancel=False)\n        return len(found)",
        "tests/test_pool.py",
    ),
    Bug(
        "a model goes in the middle of a stream",
        SEATS,
        "if self.pool is None or self.leases or self.plan is None:",
        "if self.pool is None or self.plan is None:",
        MODELS,
    ),
    Bug(
        "who was asked last goes first",
        SEATS,
        "self.unload(min(idle, key=lambda seat: seat.idle_since))",
        "self.unload(max(idle, key=lambda seat: seat.idle_since))",
        MODELS,
    ),
    Bug(
        "a model is planned before the memory of another is back",
        SEATS,
        "            if self._endings:\n                await asyncio.wait(self._endings)\n",
        "",
        MODELS,
    ),
    Bug(
        "every request loads its model",
        SEATS,
        "        if seat.loading is None:\n",
        "        if True:\n",
        MODELS,
    ),
    Bug(
        "a model that could not be loaded is tried again at once",
        SEATS,
        "        if left > 0:\n",
        "        if False:\n",
        MODELS,
    ),
    Bug(
        "a download goes on for nobody",
        "inference/pulls.py",
        "        if not self.watchers:\n",
        "        if False:\n",
        "tests/test_api_pull.py",
    ),
)
