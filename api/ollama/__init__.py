"""Ollama's own dialect, under `/api`. Nothing outside knows its shape."""
