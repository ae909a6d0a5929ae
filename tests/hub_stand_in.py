"""A small Hugging Face hub on 127.0.0.1: one repository, its headers and error codes, byte ranges.

As on the real hub, a file's page redirects to another host name that serves the bytes. What can
go wrong there can be switched on.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic, sleep
from typing import cast

REPO = "org/weights-GGUF"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubStandIn(ThreadingHTTPServer):
    """Serves `content` as every file in `files`; the other fields are switches and counters."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.content = content
        self.files = {"weights-Q8_0.gguf"}
        self.sent = 0
        """Bytes of content sent so far."""
        self.token: str | None = None
        """The repository is gated: only this token opens it."""
        self.tokens_at_the_cdn: list[str] = []
        self.announced_size: int | None = None
        self.announces_nothing = False
        self.leads_to: str | None = None
        """Where files are said to be, instead of at the other host name."""
        self.described = 0
        """Answers about a file, which are redirects."""
        self.surplus: int | None = None
        """Send so many bytes after the content, and do not say how many."""
        self.wrong_bytes = False
        self.ignores_ranges = False
        self.cut_at: int | None = None
        """Break off at this byte of the file, and answer every later download with 503."""
        self.stall_at: int | None = None
        """Send nothing from this byte on, until `released`."""
        self.released = threading.Event()
        self.out_of_order = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def has_sent(self, size: int) -> bool:
        """Whether so much was sent in the end; it is counted on another thread."""
        end = monotonic() + 30
        while self.sent < size and monotonic() < end:
            sleep(0.005)
        return self.sent == size

    def recover(self) -> None:
        """Everything works again."""
        self.cut_at = self.stall_at = None
        self.wrong_bytes = self.out_of_order = False
        self.surplus = None
        self.released.set()

    def body(self, start: int) -> Iterator[bytes]:
        """The content from `start` on, with whatever fault is on; ends early when cut."""
        content = bytes(len(self.content)) if self.wrong_bytes else self.content
        end = min(self.cut_at or len(content), self.stall_at or len(content))
        yield content[start:end]
        if self.cut_at is not None:
            self.out_of_order = True
            return
        if self.stall_at is not None:
            self.released.wait()
        yield content[end:]
        for _ in range(0, self.surplus or 0, 2**20):
            yield bytes(2**20)


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubStandIn:
        return cast(HubStandIn, self.server)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        if self.path.startswith("/cdn/"):
            self._answer(200)
        else:
            self._describe()

    def do_GET(self) -> None:
        if not self.path.startswith("/cdn/"):
            self._describe()
        elif self.hub.out_of_order:
            self._answer(503)
        else:
            self._send_content()

    def _describe(self) -> None:
        page = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        repo, revision, file = page.groups() if page else ("", "", "")
        if repo != REPO:
            return self._answer(401, {"X-Error-Code": "RepoNotFound"})
        if self.hub.token and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            return self._answer(401, {"X-Error-Code": "GatedRepo"})
        if revision not in ("main", COMMIT):
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        if file not in self.hub.files:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        if self.hub.announces_nothing:
            return self._answer(200, {"X-Repo-Commit": COMMIT})
        return self._redirect()

    def _redirect(self) -> None:
        self.hub.described += 1
        cdn = f"http://localhost:{self.hub.server_port}/cdn/{self.hub.sha256}"
        headers = {
            "Location": self.hub.leads_to or cdn,
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(self.hub.announced_size or len(self.hub.content)),
            "X-Linked-Etag": f'"{self.hub.sha256}"',
        }
        self._answer(302, headers)

    def _send_content(self) -> None:
        self.hub.tokens_at_the_cdn += self.headers.get_all("Authorization", [])
        size = len(self.hub.content)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(wanted[1]) if wanted and not self.hub.ignores_ranges else 0
        partial = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
        length = str(size - start) if self.hub.surplus is None else ""
        self._answer(206 if start else 200, {"Content-Length": length} | partial)
        try:
            for piece in self.hub.body(start):
                self.wfile.write(piece)
                self.hub.sent += len(piece)
        except ConnectionError:
            pass  # the client was killed
        self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | (headers or {})).items():
            if value:
                self.send_header(name, value)
        self.end_headers()


@contextmanager
def hub_stand_in(content: bytes) -> Iterator[HubStandIn]:
    with HubStandIn(content) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            hub.recover()
            hub.shutdown()
            thread.join()
