"""What a tenant can ask beside the models themselves: agents, each with the model below it.

Knows no dialect.
"""

from collections.abc import Iterable
from contextlib import suppress

from fastapi import Request

from api.store.agents import Agents
from api.store.records import Agent
from inference import Models, PoolStatus, UnknownModel


def agents_on(http: Request, there: Iterable[PoolStatus]) -> list[tuple[Agent, PoolStatus]]:
    """The agents that who asks can name, whose models are `there`."""
    agents: Agents = http.app.state.agents
    by_name = {now.name: now for now in there}
    on = ((agent, by_name.get(_model_of(http, agent))) for agent in agents.listed(tenant(http)))
    return [(agent, now) for agent, now in on if now]


def agent_of(http: Request, name: str | None) -> Agent | None:
    """The agent that who asks means by the name of a model."""
    agents: Agents = http.app.state.agents
    return agents.named(name, tenant(http))


def tenant(http: Request) -> str:
    of: str = http.state.tenant
    return of


def _model_of(http: Request, agent: Agent) -> str:
    """The name of the model below an agent; "" if there is none any more."""
    models: Models = http.app.state.models
    with suppress(UnknownModel):
        return models.status(agent.model or None).name
    return ""
