"""The chat page: the files that a browser gets, and their routes."""
