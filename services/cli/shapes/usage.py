"""What models were used for, and what that cost."""

from boatyard.agent.v1 import usage_pb2

from services.cli.shapes.values import Shape, known


def usage(value: usage_pb2.ModelUsageSum) -> Shape:
    """Describe what one model was used for, on one day where that is told."""
    of = {"provider": value.provider or None, "model": value.model or None}
    return {**of, **({"day": value.day} if value.day else {}), **sums(value.usage)}


def sums(value: usage_pb2.UsageSum) -> Shape:
    """Describe what requests to models used together."""
    numbers = {name: getattr(value, name) for name in value.DESCRIPTOR.fields_by_name}
    return numbers | {"cost_usd": known(value, "cost_usd")}
