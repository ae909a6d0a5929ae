"""The chat platform's own part of the API, below `/api/v1`."""
