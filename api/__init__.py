"""The outer room: HTTP, wire dialects and the command line around `inference`."""

__version__ = "0.1.0"
