"""What every service needs and no service is: errors, gRPC, databases, sandboxes, settings, logs.

Nothing here knows a service. `errors`, `ids`, `fence` and `settings` import neither gRPC nor SQL, so domain code may
use them; `sandbox` imports the standard library alone, for the runner's sake.
"""
