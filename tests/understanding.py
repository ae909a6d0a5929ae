"""What every endpoint makes of a body, by its path; whatever it gives is a request understood."""

from collections.abc import Callable
from functools import partial
from typing import Any

from api.anthropic import messages
from api.ollama import embeddings as ollama_embeddings
from api.ollama import generation
from api.openai import chat, completions, embeddings
from inference import EmbeddingRequest, GenerationRequest
from tests.bodies import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    OLLAMA_CHAT,
    OLLAMA_EMBED,
    OLLAMA_EMBEDDINGS,
    OLLAMA_GENERATE,
    RESPONSES,
    UNDERSTAND_RESPONSE,
)

UNDERSTAND: dict[str, Callable[..., Any]] = {
    CHAT: partial(chat.understand, served="fake"),
    COMPLETIONS: partial(completions.understand, served="fake"),
    RESPONSES: partial(UNDERSTAND_RESPONSE, served="fake"),
    MESSAGES: partial(messages.understand, served="fake"),
    OLLAMA_CHAT: partial(generation.understand_chat, served="fake"),
    OLLAMA_GENERATE: partial(generation.understand_generate, served="fake"),
    EMBEDDINGS: partial(embeddings.understand, served="fake"),
    OLLAMA_EMBED: partial(ollama_embeddings.understand, served="fake"),
    OLLAMA_EMBEDDINGS: lambda raw: ollama_embeddings.understand_one(raw, "fake"),
}


def requests(path: str, body: dict[str, Any]) -> tuple[GenerationRequest | EmbeddingRequest, ...]:
    """What a body asks for; raises what it is refused with."""
    meant = UNDERSTAND[path](body)
    return meant[:1] if isinstance(meant, tuple) else meant.requests
