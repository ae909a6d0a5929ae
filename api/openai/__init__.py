"""OpenAI's dialect: its request bodies, chunks and answers. Nothing outside knows their shape."""
