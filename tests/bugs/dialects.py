"""Bugs in what clients are understood to say, for `tests.seeded_bugs`."""

from tests.bugs.bug import Bug

QUIRKS = "tests/test_client_quirks.py"

BUGS = (
    Bug(
        "a schema beside json_object is forgotten",
        "api/openai/constraints.py",
        'yield Constraint("schema", field, source) if source else Constraint("json", field)',
        'yield Constraint("json", field)',
        "tests/test_api_chat.py",
    ),
    Bug(
        "null is a value",
        "api/body.py",
        "for field, value in body.items() if value is not None",
        "for field, value in body.items()",
        QUIRKS,
    ),
    Bug(
        "only exact booleans are some",
        "api/body.py",
        "flag if bool in kind else number",
        "number",
        QUIRKS,
    ),
    Bug(
        "a body with very many errors fills the memory",
        "api/body.py",
        'schema["fail_fast"] = True',
        'schema["fail_fast"] = False',
        "tests/test_source_rules.py",
    ),
    Bug(
        "addresses are matched whole",
        "api/guard.py",
        'scope["path"] = meant(scope["path"])',
        "pass",
        QUIRKS,
    ),
    Bug(
        "the public addresses have several spellings",
        "api/paths.py",
        "    return path\n",
        '    return "/" + "/".join(parts)\n',
        f"{QUIRKS} tests/test_api_access.py",
    ),
    Bug(
        "calls are folded into the wrong choice",
        "api/folding.py",
        "of[event.index].append(event)",
        "of[0].append(event)",
        "tests/test_api_chat.py tests/test_api_completions.py",
    ),
    Bug(
        "stop strings end thoughts",
        "inference/intake.py",
        'plain = opening == "no" or not stop',
        "plain = True",
        "tests/test_budget.py",
    ),
    Bug(
        "white space after thoughts is the answer's",
        "inference/preamble.py",
        'self._stage = "after"\n        if',
        'self._stage = "over"\n        if',
        "tests/test_preamble.py",
    ),
    Bug(
        "what a constrained answer says is called",
        "inference/parser.py",
        "self._answered = self._either",
        "self._answered = False",
        "tests/test_parser.py",
    ),
)
