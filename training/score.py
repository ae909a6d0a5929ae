"""Asks the exported file what was never trained, and counts the right answers per ability."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from training.dialogue import Dialogue, render
from training.runtime import END, Runtime
from training.topics.phrases import phrases
from training.topics.stories import PARTS

STORY_ENDS = ("The end.", "故事讲完了。")


@dataclass
class Score:
    """Right answers and questions, with thinking off and on."""

    plain_right: int = 0
    plain: int = 0
    thinking_right: int = 0
    thinking: int = 0

    def add(self, thinking: bool, right: bool) -> None:
        if thinking:
            self.thinking += 1
            self.thinking_right += right
        else:
            self.plain += 1
            self.plain_right += right


@dataclass(frozen=True)
class Miss:
    ability: str
    prompt: str
    wanted: str
    got: str


def final(text: str) -> str:
    """The answer without the thoughts that led to it."""
    return text.removesuffix(END).split("</think>")[-1].strip()


def thought(text: str) -> str:
    return text.partition("</think>")[0].removeprefix("<think>").strip()


def right(dialogue: Dialogue, answer: str) -> bool:
    """The exact final answer, after a thought if one was asked for.

    A story cannot be exact and needs a proper form instead: all paragraphs and an end.
    """
    got = final(answer)
    if dialogue.thinking and not thought(answer):
        return False
    if dialogue.ability == "story":
        return len(got.split("\n\n")) == PARTS and got.endswith(STORY_ENDS)
    return got == final(dialogue.completion)


def score(
    runtime: Runtime, groups: dict[str, list[Dialogue]]
) -> tuple[dict[str, Score], list[Miss]]:
    scores: dict[str, Score] = {}
    misses: list[Miss] = []
    for ability, dialogues in groups.items():
        table = scores.setdefault(ability, Score())
        for dialogue in dialogues:
            answer = runtime.answer(dialogue.prompt)
            good = right(dialogue, answer)
            table.add(dialogue.thinking, good)
            if not good:
                misses.append(Miss(ability, dialogue.prompt, dialogue.completion, answer))
    return scores, misses


def first_words() -> Iterator[tuple[str, str, list[str]]]:
    """Wordings that the corpus lacks: ability, question, and the answers that would be right."""
    for zh in (False, True):
        for line in phrases("new wordings", zh):
            question, intent = line.split(" => ")
            yield intent, question, phrases(f"{intent}: answer", zh)


def score_first_words(runtime: Runtime) -> tuple[Score, list[Miss]]:
    table, misses = Score(), []
    for intent, question, answers in first_words():
        for thinking in (False, True):
            prompt = render([{"role": "user", "content": question}], thinking=thinking)
            answer = runtime.answer(prompt)
            good = final(answer) in answers and (not thinking or bool(thought(answer)))
            table.add(thinking, good)
            if not good:
                misses.append(Miss(intent, prompt, answers[0], answer))
    return table, misses


def as_rows(scores: dict[str, Score]) -> dict[str, dict[str, int]]:
    return {ability: asdict(score) for ability, score in scores.items()}


def total(scores: Iterable[Score]) -> tuple[int, int]:
    rows = list(scores)
    good = sum(row.plain_right + row.thinking_right for row in rows)
    return good, sum(row.plain + row.thinking for row in rows)
