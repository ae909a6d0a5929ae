"""The uvicorn server around the app: its socket, its limits, its way to stop."""

import logging
import socket

import uvicorn
from fastapi import FastAPI

from api.guard import HEADERS
from api.streaming import DRAIN_SECONDS
from inference import InferenceError


class AddressTaken(InferenceError):
    code = "address_taken"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `AddressTaken` with the reason.

    It listens from now on, so the port is ours before a model is loaded.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0].lower()
        advice = "choose another with --host or --port"
        raise AddressTaken(f"Cannot listen on {host}:{port}: {reason}; {advice}.") from None
    # Connections inherit it. asyncio sets it only where the socket names its protocol, and without
    # it a token can wait 40 ms for the client's delayed acknowledgement of the one before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def server_for(app: FastAPI, patience: int = DRAIN_SECONDS + 5) -> uvicorn.Server:
    """A server that, told to stop, waits `patience` seconds for answers to end."""
    # h11 bounds the header size; httptools, which uvicorn would prefer, does not.
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=HEADERS,
        timeout_graceful_shutdown=patience,
    )
    logging.getLogger("sse_starlette.sse").setLevel(logging.INFO)  # at DEBUG it logs every chunk
    return uvicorn.Server(config)
