"""Between the catalogue's layers of settings, where anything may be left open, and a job's, where nothing is."""

from dataclasses import asdict, fields
from datetime import timedelta

from services.gateway.catalog import agent as layers
from services.lifecycle.model.job_spec import AgentSpec, JobPolicy, Limits
from services.sandbox.spec import Network, Tier

_OPEN = AgentSpec()
_OPEN_POLICY = JobPolicy()


def settled_agent(layer: layers.AgentSettings) -> AgentSpec:
    """Return the settings of all layers together, as the lifecycle has them."""
    return AgentSpec(
        engine=layer.engine or _OPEN.engine,
        command=layer.command or "",
        prompt_delivery=layer.prompt_delivery or _OPEN.prompt_delivery,
        system_prompt=layer.system_prompt or "",
        model=layer.model or "",
        environment=dict(layer.environment),
        timeout=layer.timeout.total_seconds() if layer.timeout else _OPEN.timeout,
        idle_timeout=layer.idle_timeout.total_seconds() if layer.idle_timeout else None,
        sandbox_tier=Tier[layer.sandbox_tier.name] if layer.sandbox_tier else _OPEN.sandbox_tier,
        network=Network[layer.network.name] if layer.network else _OPEN.network,
        max_turns=layer.max_turns,
        max_tokens=layer.max_tokens,
        token_budget=layer.token_budget,
        limits=Limits(**{each.name: getattr(layer, each.name) for each in fields(Limits)}),
        terminal=bool(layer.terminal),
        ask_before=layer.ask_before,
        allowed_hosts=layer.allowed_hosts,
        image=layer.image or "",
    )


def settled_policy(layer: layers.Policy) -> JobPolicy:
    """Return the policy of all layers together, as the lifecycle has it."""
    return JobPolicy(
        verify_command=layer.verify_command or "",
        verify_timeout=_seconds(layer.verify_timeout, _OPEN_POLICY.verify_timeout),
        publish=layer.publish or _OPEN_POLICY.publish,
        retention=layer.retention or _OPEN_POLICY.retention,
        checkpoints=layer.checkpoints.before if layer.checkpoints else (),
        checkpoint_timeout=_seconds(layer.checkpoint_timeout, _OPEN_POLICY.checkpoint_timeout),
        max_extra_rounds=_OPEN_POLICY.max_extra_rounds if layer.max_extra_rounds is None else layer.max_extra_rounds,
        agent_may_ask=bool(layer.agent_may_ask),
        max_attempts=layer.max_attempts or _OPEN_POLICY.max_attempts,
        retry_on=layer.retry_on or _OPEN_POLICY.retry_on,
        retry_from=layer.retry_from or _OPEN_POLICY.retry_from,
    )


def agent_layer(settled: AgentSpec) -> layers.AgentSettings:
    """Return a job's settings as one layer, for whoever writes layers."""
    return layers.AgentSettings(
        engine=settled.engine,
        command=settled.command,
        prompt_delivery=settled.prompt_delivery,
        system_prompt=settled.system_prompt or None,
        model=settled.model or None,
        environment=settled.environment,
        timeout=timedelta(seconds=settled.timeout),
        idle_timeout=timedelta(seconds=settled.idle_timeout) if settled.idle_timeout else None,
        sandbox_tier=layers.SandboxTier[settled.sandbox_tier.name],
        network=layers.Network[settled.network.name],
        max_turns=settled.max_turns,
        max_tokens=settled.max_tokens,
        token_budget=settled.token_budget,
        **asdict(settled.limits),
        terminal=settled.terminal or None,
        ask_before=settled.ask_before,
        allowed_hosts=settled.allowed_hosts,
        image=settled.image or None,
    )


def policy_layer(settled: JobPolicy) -> layers.Policy:
    """Return a job's policy as one layer, for whoever writes layers."""
    return layers.Policy(
        verify_command=settled.verify_command or None,
        verify_timeout=timedelta(seconds=settled.verify_timeout),
        publish=settled.publish,
        retention=settled.retention,
        checkpoints=layers.Checkpoints(settled.checkpoints),
        checkpoint_timeout=timedelta(seconds=settled.checkpoint_timeout),
        max_extra_rounds=settled.max_extra_rounds,
        agent_may_ask=settled.agent_may_ask,
        max_attempts=settled.max_attempts,
        retry_on=settled.retry_on,
        retry_from=settled.retry_from,
    )


def _seconds(span: timedelta | None, default: float) -> float:
    return default if span is None else span.total_seconds()
