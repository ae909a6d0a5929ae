"""Bugs of embedding models that `tests.seeded_bugs` puts into the project, one at a time."""

from tests.bugs.bug import Bug

PACKING, EMBEDDER = "inference/packing.py", "inference/embedder.py"

BUGS = (
    Bug(
        "a request of many inputs is served to its end first",
        PACKING,
        "(self._had[job.tenant], job.had)",
        "job.id",
        "tests/test_packing.py",
    ),
    Bug(
        "who asks more gets more, whatever its tenant",
        PACKING,
        "(self._had[job.tenant], job.had)",
        "job.had",
        "tests/test_packing.py",
    ),
    Bug(
        "a long input waits for cells for ever",
        PACKING,
        "patient = patient or not self._has_cells(job)",
        "pass",
        "tests/test_packing.py",
    ),
    Bug(
        "cells of who hung up are counted still",
        PACKING,
        "        for row in job.rows:\n            self._release(row)\n",
        "",
        "tests/test_packing.py",
    ),
    Bug(
        "what is done is kept in its slot",
        PACKING,
        "        self._dirty.append(row.slot)\n",
        "",
        "tests/test_packing.py",
    ),
    Bug(
        "vectors that are cut are not scaled again",
        EMBEDDER,
        "kept /= max(float(np.linalg.norm(kept)), _LEAST_LENGTH)",
        "kept /= max(float(np.linalg.norm(numbers)), _LEAST_LENGTH)",
        "tests/test_embedder.py -k dimensions",
    ),
    Bug(
        "what is no number is passed on",
        EMBEDDER,
        "if np.isfinite(numbers).all():",
        "if True:",
        "tests/test_embedder.py -k no_number",
    ),
    Bug(
        "an input that is cut loses its end token",
        "inference/intake.py",
        "tokens = tokens[: most - len(end)] + end",
        "tokens = tokens[:most]",
        "tests/test_embedder.py -k cut",
    ),
    Bug(
        "all vectors are made again after a crash",
        "inference/intake.py",
        "if item[0] not in ended",
        "if True",
        "tests/test_embedder.py -k crash",
    ),
    Bug(
        "vectors are in the order in which they come",
        "inference/embedding.py",
        "tuple(vectors[index] for index in range(count))",
        "tuple(vectors.values())",
        "tests/test_embedding_pool.py -k order",
    ),
    Bug(
        "calls of an odd number of tokens end the worker",
        "inference/placement.py",
        "        n_ubatch = -(-n_ubatch // slots) * slots\n",
        "",
        "tests/test_embedding_plan.py",
    ),
    Bug(
        "the memory of the outputs is forgotten",
        "inference/footprint.py",
        "    if header.pooling:\n",
        "    if False:\n",
        "tests/test_embedding_plan.py",
    ),
)
