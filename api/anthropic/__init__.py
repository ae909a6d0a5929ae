"""Anthropic's dialect: its bodies, events and errors. Nothing outside knows their shape."""
