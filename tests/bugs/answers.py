"""Bugs in what becomes of a request and of the tokens of its answer."""

from tests.bugs.bug import Bug

INTAKE = "inference/intake.py"
SEQUENCE = "inference/sequence.py"
PARSER = "inference/parser.py"
HOLDBACK = "inference/holdback.py"
PROMPTS = "tests/test_prompt_logprobs.py"

BUGS = (
    Bug(
        "text that is held is dropped at the end",
        SEQUENCE,
        "text += self.text.finish()",
        "pass",
    ),
    Bug(
        "an answer is a token too long",
        SEQUENCE,
        "len(self.tokens) < self.limit",
        "len(self.tokens) <= self.limit",
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
)
