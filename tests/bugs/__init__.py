"""All bugs that `tests.seeded_bugs` puts into the project, one at a time, and the protections that it
takes away."""

from tests.bugs import (
    answers,
    dialects,
    embeddings,
    models,
    protections,
    recovery,
    scheduling,
)

BUGS = (
    *scheduling.BUGS,
    *recovery.BUGS,
    *answers.BUGS,
    *dialects.BUGS,
    *embeddings.BUGS,
    *models.BUGS,
    *protections.BUGS,
)
