"""Which agent answers, by the settings of the service."""

from __future__ import annotations

from collections.abc import Callable

from avatar.serve.agent import Agent, AgentSettings, Echo

AgentMaker = Callable[[], Agent]  # one for each listener


def agent_maker(settings: AgentSettings | None) -> AgentMaker:
    """What makes the agents of listeners; `Echo` where there are no settings."""
    if settings is None:
        return Echo
    if settings.realtime:
        from avatar.serve.agent_realtime import RealtimeAgent

        return lambda: RealtimeAgent(settings)
    from avatar.serve.agent_chat import ChatAgent

    return lambda: ChatAgent(settings)
