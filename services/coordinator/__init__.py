"""Carries jobs of a gateway elsewhere on this machine's own node services, over its API alone.

The same driver as in a gateway, on a ledger that is reached by RPC. It promises that a link that is cut, or an end that
is restarted, costs no job: writes are repeated until they are answered, and what others have taken over ends here.
"""
