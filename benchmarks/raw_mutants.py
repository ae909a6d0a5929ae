"""Bytes that are almost HTTP: what a proxy, a scanner or a broken client might send.

Driven by a seed alone. Every shot is let go of when the server is silent; what it answers has to
be HTTP, and no fault.
"""

import random
from collections.abc import Callable, Iterator
from typing import Final

from benchmarks.exchange import Shot

_JSON: Final = b"Content-Type: application/json\r\n"
_CHAT: Final = b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}'
_TARGETS: Final = (
    *(b"/", b"/health", b"/ready", b"/metrics", b"/openapi.json", b"/v1/models", b"/v1", b"/docs"),
    *(b"/v1/models/qwen3-demo", b"/v1/models/", b"/v1/models/%00", b"/v1/models/..%2f..%2fetc"),
    *(b"/v1/models/" + b"x" * 9000, b"/v1/models/%ff%fe", b"/v1//models", b"/v1/models?x=%zz&&=#"),
    *(b"//", b"/../../etc/passwd", b"/%2e%2e/", b"*", b"", b"?", b"health", b"/\xff\xfe", b"/a b"),
    *(b"http://127.0.0.1/health", b"http://other.example/v1/models", b"http://", b"localhost:80"),
    *(b"/health\x00", b"/\x01\x7f", b"/;a=b", b"/v1/chat/completions", b"/v1/completions/"),
)
_METHODS: Final = (
    *(b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT"),
    *(
        b"get",
        b"PRI",
        b"G\x00T",
        b"",
        b"X" * 300,
        b"M-SEARCH",
        b"GET /x HTTP/1.1\r\nX: y\r\n\r\nGET",
    ),
)
_VERSIONS: Final = (
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/1.1.1",
    b"",
    b"http/1.1",
)
_LENGTHS: Final = (
    *(b"-1", b"+5", b"0x10", b"5,5", b"5, 6", b" 5", b"5 ", b"", b"abc", b"9" * 30, b"1e3", b"0"),
    *(b"66\r\nContent-Length: 66", b"66\r\nContent-Length: 7", b"99999", b"4294967297", b"\xb2"),
)
_CODINGS: Final = (
    *(
        b"chunked",
        b"gzip, chunked",
        b"chunked, chunked",
        b"identity",
        b"Chunked",
        b" chunked",
        b"x",
    ),
    *(b"chunked\r\nTransfer-Encoding: identity", b"\x0bchunked", b"chunked;q=1", b"xchunked"),
)
_CHUNKS: Final = (
    *(
        b"ffffffffffffffff\r\n",
        b"-1\r\n",
        b"5\r\nab",
        b"zz\r\n\r\n",
        b"0\r\n",
        b"0\r\n\r\n",
        b"\r\n",
    ),
    *(
        b"5;a=b;" + b"c" * 20_000 + b"\r\nhello\r\n0\r\n\r\n",
        b"1\n{\n0\n\n",
        b"0x1\r\n{\r\n0\r\n\r\n",
    ),
    *(b"0\r\nTrailer: x\r\nContent-Length: 5\r\n\r\n", b"1\r\n{XX0\r\n\r\n", b"\x00\x00"),
)
_HEADERS: Final = (
    *(b"Host: x", b"Host:", b": y", b"No colon", b"A : b", b"A\x00: b", b"A: \x00", b"A: b\r c"),
    *(b" folded", b"A: " + b"y" * 20_000, b"B" * 20_000 + b": y", b"Expect: 100-continue"),
    *(b"Expect: x", b"Connection: upgrade\r\nUpgrade: websocket", b"Connection: close, x, ,"),
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk",
    *(
        b"Range: bytes=0-" + b",0-" * 5000,
        b"Accept-Encoding: " + b"gzip," * 2000,
        b"Cookie: \xff=\xfe",
    ),
    *(
        b"Content-Encoding: gzip",
        b"Content-Type: text/plain; charset=\xff",
        b"X-Forwarded-Host: evil",
    ),
    b"\r\n".join(b"X-%d: y" % n for n in range(2000)),
)


def raw_mutants(host: str, seed: int) -> Iterator[Shot]:
    """An endless source of shots, the same for the same `seed`."""
    rng = random.Random(seed)
    own = b"Host: " + host.encode() + b"\r\n"
    while True:
        way = rng.choice(_WAYS)
        content = way(rng, own)
        yield Shot("raw", way.__name__.strip("_"), tuple(_pieces(rng, content)))


def _pieces(rng: random.Random, content: bytes) -> list[bytes]:
    """`content` whole, or in a few writes."""
    if rng.random() < 0.8 or len(content) < 2:
        return [content]
    cuts = sorted(rng.randrange(len(content)) for _ in range(rng.randint(1, 5)))
    return [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]


def _request(target: bytes, headers: bytes, body: bytes = b"", method: bytes = b"POST") -> bytes:
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, headers, body)


def _post(headers: bytes, body: bytes) -> bytes:
    return _request(b"/v1/chat/completions", headers, body)


def _line(rng: random.Random, own: bytes) -> bytes:
    """Odd methods, targets and versions."""
    line = (rng.choice(_METHODS), rng.choice(_TARGETS), rng.choice(_VERSIONS))
    return b"%b %b %b\r\n%b\r\n" % (*line, own)


def _target(rng: random.Random, own: bytes) -> bytes:
    return _request(rng.choice(_TARGETS), own, method=rng.choice(_METHODS[:9]))


def _length(rng: random.Random, own: bytes) -> bytes:
    """A Content-Length that lies or is none."""
    return _post(own + _JSON + b"Content-Length: " + rng.choice(_LENGTHS) + b"\r\n", _CHAT)


def _both(rng: random.Random, own: bytes) -> bytes:
    """Content-Length and Transfer-Encoding, and a request that may hide behind the body."""
    length = b"Content-Length: %d\r\n" % rng.choice((0, 3, 5, len(_CHAT), 10_000))
    coding = b"Transfer-Encoding: " + rng.choice(_CODINGS) + b"\r\n"
    headers = own + _JSON + (length + coding if rng.random() < 0.5 else coding + length)
    return _post(headers, rng.choice(_CHUNKS) + _request(b"/health", own, method=b"GET"))


def _chunked(rng: random.Random, own: bytes) -> bytes:
    headers = own + _JSON + b"Transfer-Encoding: " + rng.choice(_CODINGS) + b"\r\n"
    start = b"%x\r\n%b\r\n" % (len(_CHAT), _CHAT) if rng.random() < 0.5 else b""
    return _post(headers, start + rng.choice(_CHUNKS))


def _header(rng: random.Random, own: bytes) -> bytes:
    lines = b"\r\n".join(rng.choices(_HEADERS, k=rng.randint(1, 3))) + b"\r\n"
    headers = lines + own if rng.random() < 0.3 else own + lines
    if rng.random() < 0.5:
        return _request(b"/health", headers, method=b"GET")
    return _post(headers + _JSON + b"Content-Length: %d\r\n" % len(_CHAT), _CHAT)


def _endings(rng: random.Random, own: bytes) -> bytes:
    """Bare LF and CR, spaces and lines in front."""
    content = _post(own + _JSON + b"Content-Length: %d\r\n" % len(_CHAT), _CHAT)
    start = rng.choice((b"", b"\r\n", b"\n", b"\r\n" * 50, b" ", b"\x00", b"\xef\xbb\xbf"))
    return start + content.replace(b"\r\n", rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n")))


def _pipelined(rng: random.Random, own: bytes) -> bytes:
    """Several requests at once, the last perhaps unfinished."""
    some = [
        _request(b"/health", own, method=b"GET"),
        _request(b"/ready", own, method=b"GET"),
        _post(own + _JSON + b"Content-Length: %d\r\n" % len(_CHAT), _CHAT),
        _post(own + _JSON + b"Content-Length: 2\r\n", b"{}"),
        _post(own + _JSON + b"Content-Length: 50\r\n", b"{"),
    ]
    return b"".join(rng.choices(some, k=rng.randint(2, 20)))


def _noise(rng: random.Random, own: bytes) -> bytes:
    """Other protocols, and no protocol at all."""
    starts = (
        b"",
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-x\r\n",
    )
    return rng.choice((*starts, own)) + rng.randbytes(rng.choice((0, 1, 100, 30_000)))


def _flipped(rng: random.Random, own: bytes) -> bytes:
    """A good request with a few bytes changed, put in or missing."""
    content = bytearray(_post(own + _JSON + b"Content-Length: %d\r\n" % len(_CHAT), _CHAT))
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(content))
        content[place : place + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
    return bytes(content)


_WAYS: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (
    *(_line, _target, _length, _both, _chunked, _header, _endings, _pipelined, _noise),
    *(_flipped,) * 3,
)
