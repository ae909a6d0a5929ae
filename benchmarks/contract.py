"""Whether an answer is as the server's own OpenAPI document says, and no fault of the server."""

import json
import re
from functools import partial
from typing import Any, Final

import jsonschema_rs

from benchmarks.exchange import Reply

MAX_ERROR: Final = 4096  # bytes
_FAULTS: Final = ("internal_error", "numerical_error", "worker_lost")
_LAST: Final = (  # of a stream
    b"[DONE]",
    b'{"type":"message_stop"',
    b'{"type":"error"',
    b'{"type":"response.completed"',
    b'{"type":"response.incomplete"',
    b'{"type":"response.failed"',
)
_LEAK: Final = re.compile(rb"0x[0-9a-f]{6,}|Traceback|/site-packages/|\.py\b")
_ERROR: Final = {"$ref": "#/components/schemas/ErrorBody"}

Schema = dict[str, Any]


def fault(reply: Reply) -> str:
    """Empty, unless the server blames itself: none of what is sent here is a reason to."""
    return f"status {reply.status}" if reply.status >= 500 else ""


class Contract:
    """The answers that an OpenAPI `document` allows."""

    def __init__(self, document: Schema) -> None:
        self.document = document
        self._compiled: dict[int, jsonschema_rs.Validator] = {}  # by id of a part of it

    def body(self, path: str) -> Schema:
        """The schema of the body that `path` takes."""
        content = self.document["paths"][path]["post"]["requestBody"]["content"]
        schema: Schema = content["application/json"]["schema"]
        return schema

    def allows(self, path: str, body: Any) -> bool:
        """Whether `path` takes such a body."""
        return self._validator(self.body(path)).is_valid(body)

    def breach(self, reply: Reply, path: str = "") -> str:
        """What is wrong with a reply, in a few words that many replies share; empty if nothing.

        Without a `path` it may be any error, also one that no route has made.
        """
        if reply.status >= 400 and len(reply.body) > MAX_ERROR:
            return "an error of more than 4 KiB"
        if reply.status >= 400 and _LEAK.search(reply.body):
            return "an error that tells of the inside"
        return self._of_route(reply, path) if path else self._of_none(reply)

    def _of_route(self, reply: Reply, path: str) -> str:
        operation = self.document["paths"][path]["post"]
        answer = operation["responses"].get(str(reply.status))
        if answer is None:
            return f"status {reply.status} is not in the document"
        media = answer["content"].get(reply.media)
        if media is None:
            return f"{reply.media or 'no content type'} is not in the document"
        if reply.media == "text/event-stream":
            return self._of_stream(reply.body, media["x-event-data"])
        if reply.media == "application/x-ndjson":
            return self._of_lines(reply.body, media["x-event-data"])
        return self._json(reply.body, media["schema"])

    def _of_none(self, reply: Reply) -> str:
        is_error = reply.status >= 400 and reply.media == "application/json" and reply.body
        return self._json(reply.body, _ERROR) if is_error else ""

    def _of_stream(self, body: bytes, schema: Schema) -> str:
        events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
        if not events or not events[-1].startswith(_LAST):
            return "a stream without an end"
        events = [event for event in events if event != b"[DONE]"]
        if any(b'"code":"%b"' % code.encode() in event for event in events for code in _FAULTS):
            return "a stream that broke"
        return next(filter(None, map(partial(self._json, schema=schema), events)), "")

    def _of_lines(self, body: bytes, schema: Schema) -> str:
        *lines, rest = body.split(b"\n")
        ends = lines and (b'"done":true' in lines[-1] or lines[-1].startswith(b'{"error"'))
        if rest or not ends:
            return "a stream without an end"
        return next(filter(None, map(partial(self._json, schema=schema), lines)), "")

    def _json(self, body: bytes, schema: Schema) -> str:
        try:
            valid = self._validator(schema).is_valid(json.loads(body))
        except ValueError:
            return "a body that is no JSON"
        return "" if valid else "a body that is not as its schema says"

    def _validator(self, schema: Schema) -> jsonschema_rs.Validator:
        if id(schema) not in self._compiled:
            whole = schema | {"components": self.document["components"]}
            self._compiled[id(schema)] = jsonschema_rs.validator_for(whole)
        return self._compiled[id(schema)]
