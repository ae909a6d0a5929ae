"""Bugs in the page, for `tests.seeded_bugs`."""

from tests.bugs.bug import Bug

CHAT, COMPOSER, MAIN = (f"api/page/static/{name}.js" for name in ("chat", "composer", "main"))
ON_CHAT, ON_CONNECTION, ON_LOGIN = (
    f"tests/browser/test_{name}.py::test_" for name in ("chat", "connection", "login")
)

BUGS = (
    Bug(
        "who leaves a conversation loses what they have just said",
        CHAT,
        "    this.#takeBack();\n    this.#opening += 1;\n",
        "    this.#opening += 1;\n",
        f"{ON_CHAT}what_the_server_has_not_taken_is_kept",
    ),
    Bug(
        "what was stopped while it waited is sent all the same",
        CHAT,
        '    if (!this.turn.sent) this.#unsent("");\n    else if (',
        "    if (",
        f"{ON_CONNECTION}a_message_waits_for_the_connection",
    ),
    Bug(
        "an answer is lost to what was asked before it began",
        CHAT,
        "opening === this.#opening && turn === this.turn",
        "opening === this.#opening",
        f"{ON_CONNECTION}what_is_said_after_a_failed_answer_is_followed",
    ),
    Bug(
        "what comes back takes the place of what was written since",
        COMPOSER,
        "this.write([text, this.#box.value].filter(Boolean).join(GAP));",
        "this.write(text);",
        f"{ON_CHAT}what_is_given_back_takes_the_place_of_nothing",
    ),
    Bug(
        "who signs out leaves their drafts to the next one",
        MAIN,
        "  forgetPerson();\n",
        "",
        f"{ON_LOGIN}a_key_opens_the_page_and_stays_nowhere",
    ),
)
