"""What `tests.seeded_bugs` does to the project: bugs that it puts in, and protections that it takes
away, one at a time."""

from tests.bugs import (
    agents,
    answers,
    conversations,
    dialects,
    door,
    embeddings,
    models,
    page,
    protections,
    recovery,
    scheduling,
)

BUGS = (
    *scheduling.BUGS,
    *recovery.BUGS,
    *answers.BUGS,
    *agents.BUGS,
    *conversations.BUGS,
    *dialects.BUGS,
    *embeddings.BUGS,
    *models.BUGS,
    *page.BUGS,
    *protections.BUGS,
    *door.BUGS,
)
