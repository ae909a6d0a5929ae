"""Which dialect an address speaks: that of OpenAI, where no other one is known."""

from collections.abc import Mapping
from typing import Final

from api.anthropic.errors import ANTHROPIC
from api.dialect import Dialect
from api.ollama.errors import OLLAMA
from api.openai.errors import OPENAI

_BELOW: Final[Mapping[str, Dialect]] = {
    "/v1/messages": ANTHROPIC,
    "/api/v1": OPENAI,
    "/api": OLLAMA,
}


def dialect_of(path: str) -> Dialect:
    for place, dialect in _BELOW.items():
        if path == place or path.startswith(f"{place}/"):
            return dialect
    return OPENAI
