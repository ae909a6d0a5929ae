"""A real nginx with the file that is shipped, on loopback, in a folder of its own.

As root it is started as `nobody`. Its listening socket is made here and handed over, as one nginx
hands it to the next, so that there is no port to guess and nothing to wait for.
"""

import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from setup.debian import where
from tests.programs import missing

SHIPPED = Path(__file__).parents[1] / "deploy" / "nginx.conf"
NAME = "chat.example.com"
AROUND = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  {site}
}}
"""


@dataclass(frozen=True)
class Proxy:
    """Where it answers, and the certificate to trust it by."""

    url: str
    certificate: Path
    tls: ssl.SSLContext
    log: Path


@contextmanager
def proxied(upstream: str, without: str = "", beside: str = "") -> Iterator[Proxy]:
    """nginx in front of the Onebox at `upstream`, without a line of the file, and with another."""
    for program in ("nginx", "openssl"):
        missing(program)
    folder = Path(tempfile.mkdtemp(prefix="onebox-nginx-"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        try:
            _write(folder, upstream.removeprefix("http://"), port, without, beside)
            with _running(folder, listener):
                certificate = folder / "certificate.pem"
                tls = ssl.create_default_context(cafile=certificate)
                url = f"https://127.0.0.1:{port}"
                yield Proxy(url, certificate, tls, folder / "access.log")
        finally:
            shutil.rmtree(folder)


@contextmanager
def _running(folder: Path, listener: socket.socket) -> Iterator[None]:
    command = [where("nginx"), "-p", folder, "-c", "nginx.conf", "-e", "stderr"]
    log = folder / "error.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            env={"NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
            stderr=errors,
            **_nobody(),
        )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait() == 0, log.read_text()


def _nobody() -> dict:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _write(folder: Path, upstream: str, port: int, without: str, beside: str) -> None:
    """The shipped file, with another port, certificate, log and upstream, and else as it is."""
    site = SHIPPED.read_text()
    assert without in site
    site = beside + site.replace(without, "")
    for what, instead in (
        (r"server 127\.0\.0\.1:8000;", f"server {upstream};"),
        (r"server \{\n    listen 80;.*?\n\}\n", ""),
        (r"listen 443", f"listen 127.0.0.1:{port}"),
        (r"listen \[::\]:443[^;]*;", ""),
        (r"/etc/letsencrypt/live/\S+/fullchain.pem", "certificate.pem"),
        (r"/etc/letsencrypt/live/\S+/privkey.pem", "key.pem"),
        (r"/var/log/nginx/onebox.log", "access.log"),
    ):
        site, times = re.subn(what, instead, site, flags=re.DOTALL)
        assert times == 1, what
    (folder / "nginx.conf").write_text(AROUND.format(site=site))
    _certify(folder)
    if user := _nobody():
        for path in (folder, *folder.iterdir()):
            os.chown(path, user["user"], user["group"])


def _certify(folder: Path) -> None:
    names = f"subjectAltName=IP:127.0.0.1,DNS:{NAME}"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-noenc", "-days", "1", "-subj", f"/CN={NAME}", "-addext", names]
    command += ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
