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

# `bytes` is about what a row takes on the disk, with its ids and its places in indexes. They are
# added up beside the sessions, whose rows may be long and would be written again each time.
_SIZES: Final = """
ALTER TABLE sessions ADD COLUMN bytes INTEGER AS (
    500 + length(CAST(title || model || settings AS BLOB))
) VIRTUAL;
ALTER TABLE messages ADD COLUMN bytes INTEGER AS (
    300 + length(CAST(
        content || reasoning || tool_calls || answers || reason || error || model ||
        ifnull(usage, '') AS BLOB
    ))
) VIRTUAL;
ALTER TABLE summaries ADD COLUMN bytes INTEGER AS (
    200 + length(CAST(facts || content AS BLOB))
) VIRTUAL;

CREATE TABLE sizes (
    session TEXT PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    tenant TEXT NOT NULL,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sizes_of_tenant ON sizes (tenant, bytes);
INSERT INTO sizes SELECT id, tenant, bytes
    + ifnull((SELECT sum(bytes) FROM messages WHERE session = sessions.id), 0)
    + ifnull((SELECT sum(bytes) FROM summaries WHERE session = sessions.id), 0)
FROM sessions;

CREATE TRIGGER session_added AFTER INSERT ON sessions BEGIN
    INSERT INTO sizes VALUES (NEW.id, NEW.tenant, NEW.bytes);
END;
CREATE TRIGGER session_changed AFTER UPDATE OF title, model, settings ON sessions BEGIN
    UPDATE sizes SET bytes = bytes + NEW.bytes - OLD.bytes WHERE session = NEW.id;
END;
CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
    UPDATE sizes SET bytes = bytes + NEW.bytes WHERE session = NEW.session;
END;
CREATE TRIGGER message_changed AFTER UPDATE ON messages BEGIN
    UPDATE sizes SET bytes = bytes + NEW.bytes - OLD.bytes WHERE session = NEW.session;
END;
CREATE TRIGGER summary_added AFTER INSERT ON summaries BEGIN
    UPDATE sizes SET bytes = bytes + NEW.bytes WHERE session = NEW.session;
END;
"""

MIGRATIONS: Final = (_FIRST, _SIZES)
