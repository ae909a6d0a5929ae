"""Bodies that schemathesis makes from the server's own OpenAPI document, right ones and wrong ones.

The same for the same seed. Needs the packages of the tests.
"""

import json
import random
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode, openapi

from benchmarks.body_mutants import CHAT, COMPLETIONS
from benchmarks.contract import Contract
from benchmarks.exchange import Shot, post

_FREE: Final = 0.01  # of the bodies may ask for as many tokens as they like
_FEW: Final = 3


def generate(
    contract: Contract, host: str, number: int, count: int, take: Callable[[Shot], None]
) -> None:
    """Hand `count` shots of the seed `number` to `take`, or fewer."""
    schema = openapi.from_dict(contract.document)
    rng = random.Random(number)

    def shoot(path: str, mode: str, case: Case[Any]) -> None:
        request = post(path, host, _content(modest(case.body, rng)))
        take(Shot("schema", mode, (request,), path, whole=True))

    kinds = list(product((CHAT, COMPLETIONS), GenerationMode))
    for path, mode in kinds:
        cases = schema[path]["POST"].as_strategy(generation_mode=mode)
        _each(cases, number, count // len(kinds), partial(shoot, path, mode))


def _each(
    cases: SearchStrategy[Case[Any]], number: int, count: int, see: Callable[[Case[Any]], None]
) -> None:
    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def run(case: Case[Any]) -> None:
        see(case)

    run()


def modest(body: Any, rng: random.Random) -> Any:
    """`body`, without a wish for many tokens most of the time."""
    if not isinstance(body, dict) or rng.random() < _FREE:
        return body
    limits = {name: body.get(name) for name in ("max_tokens", "max_completion_tokens")}
    wishes = [limit for limit in limits.values() if limit is not None]
    if wishes and not any(_is_many(wish) for wish in wishes):
        return body
    return body | {"max_tokens": _FEW, "max_completion_tokens": None}


def _is_many(wish: Any) -> bool:
    return isinstance(wish, int | float) and (wish == -1 or wish > _FEW)


def _content(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
