"""An embedding model of another kind: a BERT, which keeps no cells and takes inputs whole."""

import pytest

from inference import ContextTooLong, EmbeddingRequest, Pool, load_config, prepare
from tests import embedding_model
from tests.embedding_model import cosine, vector_of

TEXTS = ("hello world", "a b c", "the quick brown fox " * 5, "z", "abc " * 100)


async def test_its_vectors_are_those_of_an_evaluation_one_by_one(tmp_path):
    path = embedding_model.write_encoder(tmp_path / "bert.gguf")
    deployment = prepare(load_config(), str(path), tuned=False)
    assert deployment.plan.in_ram.kv == 0
    pool = Pool(deployment)
    await pool.start()
    await pool.until_ready()
    made = await pool.embed(EmbeddingRequest(inputs=TEXTS * 8))
    with embedding_model.reference(path, "mean") as reference:
        tokens = [reference.tokens(text) for text in TEXTS]
        expected = [reference.vector(each) for each in tokens]
    for data, vector in zip(made.vectors, expected * 8, strict=True):
        assert cosine(vector_of(data), vector) > 0.9999
    assert made.prompt_tokens == 8 * sum(map(len, tokens))
    assert max(cosine(expected[0], other) for other in expected[1:]) < 0.99
    long = EmbeddingRequest(inputs=("a " * 900,))
    with pytest.raises(ContextTooLong, match="902 tokens > 512"):
        await pool.embed(long)
    cut = await pool.embed(EmbeddingRequest(inputs=("a " * 900,) * 20, truncate=True))
    assert cut.prompt_tokens == 20 * 512
    await pool.close()
