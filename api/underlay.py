"""Lays settings, or an agent, under a request: what a client says itself wins. Pure."""

from dataclasses import replace

from api.fields import FullSampling
from api.openai.common import unlimited
from api.openai.functions import FunctionBody
from api.store.records import Agent, Settings
from inference import GenerationRequest, Message, Sampling, Tool, thinks


def laid_under(request: GenerationRequest, said: Settings) -> GenerationRequest:
    """`request` with all that it leaves unsaid.

    What is a prompt already, and no conversation, gets no system prompt and no tools.
    """
    if request.messages:
        messages = _after(said.system_prompt, request.messages)
        tools = request.tools or _offered(said, request.allowed)
        request = replace(request, messages=messages, tools=tools)
    return replace(
        request,
        thinking=request.thinking if said.thinking is None else thinks(request, said.thinking),
        max_tokens=(
            unlimited(said.max_tokens) if request.max_tokens is None else request.max_tokens
        ),
        sampling=request.sampling.over(_sampling(said)),
    )


def of_agent(request: GenerationRequest, agent: Agent | None) -> GenerationRequest:
    """`request`, with the agent laid under it that it names as its model, if it names one."""
    if agent is None:
        return request
    return replace(laid_under(request, agent.settings), model=agent.model or None)


def _after(system: str | None, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """`messages` after a system prompt, in one message with one of theirs: templates know one."""
    if not system:
        return messages
    first, *rest = messages
    if first.role != "system":
        return (Message("system", system), *messages)
    both = f"{system}\n\n{first.content}" if first.content else system
    return (replace(first, content=both), *rest)


def _offered(said: Settings, allowed: frozenset[str] | None) -> tuple[Tool, ...]:
    tools = (FunctionBody.model_validate(tool["function"]).tool() for tool in said.tools or ())
    return tuple(tool for tool in tools if allowed is None or tool.name in allowed)


def _sampling(said: Settings) -> Sampling:
    """As of a request that says the same."""
    alike = FullSampling.model_fields.keys() & set(Settings.__struct_fields__)
    fields = {name: getattr(said, name) for name in alike}
    return FullSampling(**fields, repeat_penalty=said.repetition_penalty).sampling()
