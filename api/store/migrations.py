"""The steps that make the database what it is, oldest first. Never change one; add one."""

from typing import Final

_FIRST: Final = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    title TEXT NOT NULL,
    model TEXT NOT NULL,
    settings TEXT NOT NULL,
    head TEXT,
    touched INTEGER NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL
) STRICT;
CREATE INDEX sessions_of_tenant ON sessions (tenant, touched);

CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    parent TEXT,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    thought_ms INTEGER,
    tool_calls TEXT NOT NULL,
    answers TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    error TEXT NOT NULL,
    model TEXT NOT NULL,
    usage TEXT,
    created REAL NOT NULL
) STRICT;
CREATE INDEX messages_of_session ON messages (session, number);
CREATE INDEX running_messages ON messages (state) WHERE state = 'running';

CREATE TABLE summaries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    upto TEXT NOT NULL,
    facts TEXT NOT NULL,
    content TEXT NOT NULL,
    messages INTEGER NOT NULL,
    created REAL NOT NULL
) STRICT;
CREATE INDEX summaries_of_session ON summaries (session, number);

CREATE TABLE agents (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    shared INTEGER NOT NULL,
    name TEXT NOT NULL COLLATE NOCASE,
    description TEXT NOT NULL,
    model TEXT NOT NULL,
    settings TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

CREATE TABLE logins (
    sha256 TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    expires REAL NOT NULL
) STRICT;
"""

MIGRATIONS: Final = (_FIRST,)
