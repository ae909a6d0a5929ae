"""Bugs in who comes in, and in how a WebSocket lives: protections that are taken away."""

from tests.bugs.bug import Bug

ADMISSION, APP, CONNECTION, GUARD, KEYS, SERVER, SOCKET = (
    f"api/{name}.py"
    for name in (
        "admission",
        "app",
        "connection",
        "guard",
        "keys",
        "server",
        "websocket_connection",
    )
)
LOGINS, LOGIN = "api/store/logins.py", "api/gateway/login.py"
ON_LOGINS = "tests/test_login.py"
ON_ACCESS, ON_SOCKETS, ON_STOPS = (
    f"tests/test_{name}.py" for name in ("sockets_access", "sockets", "sockets_stop")
)

BUGS = (
    Bug(
        "a token is good once",
        LOGINS,
        "self._tokens.pop(_digest(secret), None)",
        "self._tokens.get(_digest(secret))",
        ON_LOGINS,
    ),
    Bug(
        "tokens have an end",
        LOGINS,
        "Login(tenant, now + TOKEN_SECONDS)",
        "Login(tenant, now + SECONDS)",
        ON_LOGINS,
    ),
    Bug(
        "one key has so many cookies",
        LOGINS,
        "WHERE expires <= ? OR place > ?",
        "WHERE expires <= ? OR place > 10 * ?",
        ON_LOGINS,
    ),
    Bug(
        "a cookie ends with its key, not with its name",
        KEYS,
        "if key.tenant == tenant)",
        'if key.name == str(tenant).partition(":")[0])',
        ON_LOGINS,
    ),
    Bug("no script reads a cookie", LOGIN, "        httponly=True,\n", "", ON_LOGINS),
    Bug(
        "no other site sends a cookie",
        LOGIN,
        'samesite="strict"',
        'samesite="lax"',
        ON_LOGINS,
    ),
    Bug(
        "over TLS a cookie goes no other way",
        LOGIN,
        'secure=http.headers.get("origin", "").startswith("https://")',
        "secure=False",
        ON_LOGINS,
    ),
    Bug(
        "logging out ends connections",
        LOGIN,
        "        sockets.logged_out(cookie)\n",
        "",
        ON_ACCESS,
    ),
    Bug(
        "a cookie counts for our own pages",
        ADMISSION,
        "_cookie(headers) if is_own_page(headers) else None",
        "_cookie(headers)",
        ON_LOGINS,
    ),
    Bug(
        "of two cookies one is a neighbour's",
        ADMISSION,
        "return values.pop() if len(values) == 1 else None",
        "return max(values, default=None)",
        ON_LOGINS,
    ),
    Bug(
        "a key and a token are two",
        ADMISSION,
        "return None if shown.token is not None else self._keys",
        "return self._keys",
        ON_LOGINS,
    ),
    Bug(
        "a wrong token is a guess",
        ADMISSION,
        "if shown.secret is None and shown.token is None:",
        "if shown.secret is None:",
        ON_LOGINS,
    ),
    Bug(
        "a token opens the platform alone",
        GUARD,
        'if path in PUBLIC or not (path == "/ws" or _is_gateway(path)):',
        "if path in PUBLIC:",
        ON_LOGINS,
    ),
    Bug(
        "who only looks at the page uses no token up",
        GUARD,
        'if path in PUBLIC or not (path == "/ws" or _is_gateway(path)):',
        'if not (path.startswith("/") or _is_gateway(path)):',
        ON_LOGINS,
    ),
    Bug(
        "nobody behind the guard sees a token",
        GUARD,
        'scope["query_string"], token = without_token(scope["query_string"])',
        '_, token = without_token(scope["query_string"])',
        ON_ACCESS,
    ),
    Bug(
        "all that is below operator needs the scope admin",
        GUARD,
        'return path in ADMIN or path == OPERATOR or path.startswith(f"{OPERATOR}/")',
        "return path in ADMIN or path == OPERATOR",
        ON_LOGINS,
    ),
    Bug(
        "an answer on a connection counts",
        GUARD,
        "    if usage:\n        usage.begin()\n    try:\n        with busy:",
        "    try:\n        with busy:",
        ON_ACCESS,
    ),
    Bug(
        "a connection is no answer",
        GUARD,
        'if scope["type"] == "http" and usage:',
        "if usage:",
        ON_ACCESS,
    ),
    Bug(
        "a removed key ends its connections",
        APP,
        "expel_revoked(keys, state.models, state.sockets)",
        "expel_revoked(keys, state.models)",
        ON_ACCESS,
    ),
    Bug(
        "a message has a largest size", SOCKET, "max_size=MAX_MESSAGE", "max_size=None", ON_SOCKETS
    ),
    Bug("so many frames at once", SOCKET, "if self.allowed < 0:", "if False:", ON_SOCKETS),
    Bug(
        "half a message has its time",
        SOCKET,
        "self._half = self.loop.call_later(self._patience, self._lose_patience)",
        "pass",
        ON_SOCKETS,
    ),
    Bug(
        "each message has its own time",
        SOCKET,
        "        self._expect_no_rest()\n        try:",
        "        try:",
        ON_SOCKETS,
    ),
    Bug(
        "halves of messages have a bound together",
        CONNECTION,
        "return size <= 0 or self._held <= _MOST_HELD",
        "return True",
        ON_SOCKETS,
    ),
    Bug(
        "who reads no pongs is held back",
        SOCKET,
        "        if self.writable.is_set():\n",
        "        if True:\n",
        ON_SOCKETS,
    ),
    Bug(
        "who takes nothing of a WebSocket is cut off",
        SOCKET,
        "            self._stall.begin()\n",
        "            pass\n",
        ON_SOCKETS,
    ),
    Bug(
        "who is not read is not silent",
        SOCKET,
        "if self.read_paused:  # its answer",
        "if False:  # its answer",
        ON_SOCKETS,
    ),
    Bug(
        "a WebSocket leaves its place at the door",
        CONNECTION,
        "left=partial(self._door.leave, self._inside)",
        "left=bool",
        ON_SOCKETS,
    ),
    Bug(
        "HTTP waits for nothing on a WebSocket",
        CONNECTION,
        '        if self._handed_over:\n            return "nothing"\n',
        "",
        ON_SOCKETS,
    ),
    Bug(
        "a handshake has no body",
        CONNECTION,
        "if _has_body(event) or not",
        "if not",
        ON_SOCKETS,
    ),
    Bug(
        "refused handshakes tell browsers to be careful",
        SOCKET,
        '"headers": [*self.default_headers, *message["headers"]]',
        '"headers": message["headers"]',
        ON_SOCKETS,
    ),
    Bug(
        "who still sends is told why it is cut off",
        SOCKET,
        "                self.transport.write_eof()\n",
        "                self.transport.close()\n",
        ON_SOCKETS,
    ),
    Bug(
        "idle connections hold no stop up",
        SERVER,
        "                socket.leave()\n",
        "                pass\n",
        ON_STOPS,
    ),
    Bug(
        "an answer on a connection holds a stop up",
        SOCKET,
        "return self.handshake_complete and not self._busy",
        "return self.handshake_complete",
        ON_STOPS,
    ),
    Bug(
        "who waits to send does not hold a stop up",
        SOCKET,
        "        self.writable.set()  # who waits",
        "        pass  # who waits",
        ON_STOPS,
    ),
)
