"""The node services, as a job's driver calls them: the only place in this package that knows their stubs.

Every call for a job shows its fence. A node that is away, or has no room, is asked again until patience is over; all
calls may be repeated, for ids are chosen here, and node services answer the same request the same way.
"""

from services.lifecycle.nodes.channels import connected
from services.lifecycle.nodes.client import JobNodes, Nodes
from services.lifecycle.nodes.inventory import NodeInventory
from services.lifecycle.nodes.retries import NodeLost, RetryLimits

__all__ = ["JobNodes", "NodeInventory", "NodeLost", "Nodes", "RetryLimits", "connected"]
