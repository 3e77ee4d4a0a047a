"""What every service needs: errors, gRPC, databases, settings, logs, metrics.

Nothing here knows a service. `errors`, `ids`, `fence` and `settings` import neither gRPC nor SQL, so domain code may
use them.
"""
