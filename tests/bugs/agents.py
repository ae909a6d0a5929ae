"""Bugs in agents, for `tests.seeded_bugs`."""

from tests.bugs.bug import Bug

STORED, UNDERLAY = "api/store/agents.py", "api/underlay.py"
ALONE, ASKED = "tests/test_agents.py", "tests/test_agents_api.py"

BUGS = (
    Bug(
        "a shared agent comes before one's own",
        STORED,
        "self._own(tenant).get(key) or self._shared.get(key)",
        "self._shared.get(key) or self._own(tenant).get(key)",
        ALONE,
    ),
    Bug(
        "everybody sees every agent by its id",
        STORED,
        "seen = (*self._own(tenant).values(), *self._shared.values())",
        "seen = [one for own in self._of.values() for one in own.values()]",
        ALONE,
    ),
    Bug(
        "an agent that is renamed keeps its old name",
        STORED,
        "        if before := self._by_id(agent):\n            self._forget(before)\n",
        "",
        ALONE,
    ),
    Bug(
        "changes are made at the same time",
        STORED,
        "            async with self._changing:\n                return await work\n",
        "            return await work\n",
        ALONE,
    ),
    Bug(
        "who hangs up leaves on the disk what is not in memory",
        STORED,
        "return await asyncio.shield(asyncio.create_task(in_turn()))",
        "return await in_turn()",
        ALONE,
    ),
    Bug(
        "an agent that changes counts twice",
        STORED,
        'WHERE tenant = ? AND id != ?"',
        "WHERE tenant = ? AND ? != ''\"",
        ALONE,
    ),
    Bug(
        "what an agent says wins",
        UNDERLAY,
        "request.sampling.over(_sampling(said))",
        "_sampling(said).over(request.sampling)",
        ALONE,
    ),
    Bug(
        "no tools are some of an agent's",
        UNDERLAY,
        " if allowed is None or tool.name in allowed",
        "",
        ALONE,
    ),
    Bug(
        "an agent thinks though /no_think is written",
        UNDERLAY,
        "thinks(request, said.thinking)",
        "(said.thinking if request.thinking is None else request.thinking)",
        ALONE,
    ),
    Bug(
        "an agent and its client say two system messages",
        UNDERLAY,
        'if first.role != "system":',
        "if True:",
        ALONE,
    ),
    Bug(
        "everybody shares",
        "api/gateway/agents.py",
        "if about.shared and not http.state.admin:",
        "if False:",
        ASKED,
    ),
    Bug(
        "everybody changes what is shared",
        "api/gateway/agents.py",
        "if agent.tenant != tenant(http) and not http.state.admin:",
        "if False:",
        ASKED,
    ),
    Bug(
        "an agent hides a model",
        "api/gateway/agents.py",
        "if _means(models, about.name):",
        "if False:",
        ASKED,
    ),
    Bug(
        "an agent's prompt is counted without it",
        "api/asking.py",
        'meant(http, replace(request, id=f"ask-{uuid4().hex}"))',
        'replace(request, id=f"ask-{uuid4().hex}")',
        ASKED,
    ),
    Bug(
        "the model below an agent does not come and go",
        "api/ollama/generation.py",
        "request = meant(GenerationRequest(**body.about()))",
        "request = GenerationRequest(**body.about())",
        ASKED,
    ),
)
