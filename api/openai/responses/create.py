"""`POST /v1/responses`: body -> `GenerationRequest`.

Pure but for its route and for the store that it is given. Fields follow OpenAI's API reference, and
those of `/v1/chat/completions` mean the same here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field

from api.body import Text, Word, read_kept
from api.errors import UnknownPrevious, UnknownResponse
from api.openai.common import GenerationBody, Head, Limit, generation, read, schema, unlimited
from api.openai.responses.encoder import Encoder, forget
from api.openai.responses.fields import (
    FunctionTool,
    Include,
    Metadata,
    ReasoningChoice,
    TextBody,
    ToolChoice,
    Tools,
    Choosing,
    functions_of,
)
from api.openai.responses.items import Input, Items, Reference, Said, flat_name, messages_of
from api.openai.responses.store import Kept, Store
from api.openai.responses.wire import Echo, Event, ResponseOut, response_of
from api.openai.thinking import ThinkingBody
from api.streaming import Call, answer
from inference import BadRequest, Constraint, GenerationRequest, Message, Tool
