"""The gateway: conversations that are stored, agents and the operator, under /api/v1 and /ws."""
