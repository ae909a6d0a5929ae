"""What outlives the server: conversations, agents, logins, in one SQLite file."""
