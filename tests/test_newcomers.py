"""Clients that were written by the documentation alone, with a real server and a real model."""

import asyncio
import sys
from pathlib import Path

import pytest

from api import keys
from api.keys import KeyFile
from inference import Pool
from tests.fake_pool import serving
from tests.nginx import proxied

HERE = Path(__file__).parent / "newcomers"
FRANCE, PARIS = "What is the capital of France?", "The capital of France is Paris."


@pytest.fixture
async def server(deployment, key_file):
    """Its address, and a key for it."""
    secret = keys.add(key_file, "newcomer")
    pool = Pool(deployment)
    async with serving(pool, keys=KeyFile(key_file)) as url:
        await pool.until_ready()
        yield url, secret


async def run(script: str, *arguments: str) -> dict[str, str]:
    """What the lines of its output say of each thing."""
    command = [sys.executable, HERE / script, *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    lines = output.decode().splitlines()
    return {name: text for name, _, text in (line.partition(": ") for line in lines)}


async def test_a_client_with_requests(server):
    said = await run("requests_client.py", *server, FRANCE)
    assert said["models"] == "qwen3-demo"
    assert said["whole"] == PARIS
    assert said["stream"].replace("|", "") == PARIS  # who is slow gets several tokens at once
    assert said["stored"] == f"{FRANCE} ['user', 'assistant']"
    assert said["refused"] == "400 temperature: Input should be less than or equal to 2."


async def test_a_client_with_ollamas_package_through_nginx(server):
    url, secret = server
    with proxied(url) as proxy:
        arguments = (proxy.url, secret, FRANCE, str(proxy.certificate))
        said = await run("ollama_client.py", *arguments)
    assert said["models"] == "qwen3-demo"
    assert said["whole"] == said["prompt"] == PARIS
    assert said["stream"].replace("|", "") == PARIS  # who is slow gets several tokens at once
    assert said["refused"].startswith("404 No model of that name is served")
