"""What agents may spend on models: budgets of projects, and what is spent of them.

Requests are counted by `services.gateway.ledger.budgets`, in the driver's name. Promises: whoever sees a project sees
its budgets; a limit that changes holds from the next request on.
"""
