"""A value as the JSON of an answer. Knows no dialect."""

import msgspec
from fastapi import Response


class JsonReply(Response):
    """Of anything that msgspec can write, a `Struct` above all."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return msgspec.json.encode(content)
