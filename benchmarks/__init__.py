"""Measuring tools; nothing here is part of the server."""
