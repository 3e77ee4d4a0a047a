"""The node services, as a job's driver calls them: the only place in this package that knows their stubs.

Every call for a job carries its fence. A node that is away, or has no room, is called again within RetryLimits. All
calls may be repeated: ids are chosen here, and node services answer the same request in the same way.
"""

from services.lifecycle.nodes.channels import connected
from services.lifecycle.nodes.client import JobNodes, Nodes
from services.lifecycle.nodes.condition import NodeWatch
from services.lifecycle.nodes.inventory import NodeInventory
from services.lifecycle.nodes.retries import NodeLost, RetryLimits

__all__ = ["JobNodes", "NodeInventory", "NodeLost", "NodeWatch", "Nodes", "RetryLimits", "connected"]
