"""Real parts for the tests: the bundled model, and worker processes that serve it."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
import uvicorn.server
from hypothesis import settings

from inference import Deployment, Pool, Wishes, kv_cache, load_config, prepare
from inference.llama import Llama
from tests import embedding_model
from tests.fake_pool import serving

settings.register_profile("onebox", deadline=None)  # nothing in the suite is timed
settings.load_profile("onebox")


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither files, a proxy, a compiler nor a GPU, but for a model that was pulled for tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.delenv("CXX", raising=False)
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, "127.0.0.1,localhost")
        if "ONEBOX_TEST_MODEL" not in os.environ:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="session", autouse=True)
def servers_that_end_at_once() -> Iterator[None]:
    """uvicorn looks ten times a second whether it is to end, and waits as long again when it is;
    with hundreds of servers that would be minutes."""
    quick = SimpleNamespace(**vars(asyncio) | {"sleep": lambda _: asyncio.sleep(0.005)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.server, "asyncio", quick)
        yield


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Where a server under test has its keys; there are none yet."""
    return tmp_path / "keys.json"


@pytest.fixture(scope="session")
def deployment() -> Deployment:
    """The bundled model on this machine, 8 slots of 1,024 tokens."""
    return prepare(load_config(), "qwen3-demo", Wishes(context=8192, slots=8), tuned=False)


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """The bundled model as an embedding model, pooled as Qwen3-Embedding is."""
    path = embedding_model.write(tmp_path_factory.mktemp("embedder") / "embedder.gguf", "last")
    return prepare(load_config(), str(path), Wishes(context=2048, slots=16), tuned=False)


@pytest.fixture(scope="session")
def llama(deployment: Deployment) -> Iterator[Llama]:
    model = Llama(deployment.engine)
    yield model
    model.close()


@pytest.fixture
async def pool(deployment: Deployment) -> AsyncIterator[Pool]:
    """A pool with a real worker process, ready."""
    pool = Pool(deployment)
    await pool.start()
    await pool.until_ready()
    yield pool
    await pool.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(deployment: Deployment) -> AsyncIterator[str]:
    """Where a server with a real worker is, for the tests of a module, which share its loop."""
    pool = Pool(deployment)
    async with serving(pool) as url:
        await pool.until_ready()
        yield url


@pytest.fixture(scope="module")
def short_prefixes_are_worth_a_copy() -> Iterator[None]:
    """Where texts of a few tokens stand for long ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_cache, "WORTH_A_COPY", 3)
        yield
