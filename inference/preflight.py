"""A look at a model file before anything else happens to it, in a process of its own.

Whatever the file does there, here it costs one `BadModelFile` with one sentence. Knows neither the
format nor how a file is looked at.
"""

import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import msgspec

from inference.errors import BadModelFile
from inference.gguf_header import GgufHeader
from inference.sandbox import command, environment

MEMORY = 512 << 20  # bytes, beside what Python itself needs
SECONDS = 10  # that may pass
_TEMPLATE_SECONDS = 2.0  # of computing
OUT_OF_MEMORY = 3  # exit code


class Finding(msgspec.Struct):
    """What is said of the header, and then of the chat template: a refusal, or nothing is wrong."""

    header: GgufHeader | None = None
    refusal: str = ""


def inspect(path: Path, seconds: float = _TEMPLATE_SECONDS) -> GgufHeader:
    """The header of the model file at `path`, whose chat template compiles and does no harm within
    so many seconds.

    Raises BadModelFile with one sentence, whatever is in the file.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise BadModelFile(f"{str(path)!a} is no text in UTF-8: rename the file.") from None
    output, end = _look(path, seconds)
    findings = [
        msgspec.json.decode(line, type=Finding, dec_hook=lambda kind, value: kind(value))
        for line in output.split(b"\n")[:-1]
    ]
    for finding in findings:
        if finding.refusal:
            raise BadModelFile(finding.refusal)
    match findings:
        case [Finding(header=GgufHeader() as header), _]:
            return replace(header, path=path)
        case [_]:
            what = "trying its chat template"
        case _:
            what = "reading its header"
    raise BadModelFile(f"{path} cannot be used: {what} {end}; choose another file.")


def _look(path: Path, seconds: float) -> tuple[bytes, str]:
    """What was found out, and why no more than that."""
    try:
        done = subprocess.run(
            command("inference.preflight_worker", str(path), str(seconds)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        return expired.stdout or b"", f"takes more than {SECONDS} s"
    return done.stdout, _end(done.returncode, seconds)


def _end(code: int, seconds: float) -> str:
    if code == -signal.SIGPROF:
        return f"takes more than {seconds:g} s of computing"
    if code == OUT_OF_MEMORY:
        return f"takes more than {MEMORY >> 20} MiB"
    return f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"
