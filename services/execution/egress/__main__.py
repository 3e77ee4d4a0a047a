"""`python -m services.execution.egress`.

The first line of standard input says what to allow, as a JSON object; the second is the pid of a sandbox's init. It
says READY on standard output when the sandbox may begin, or one line of complaint, and from then on each decision.
"""

from services.execution.egress.serving import main

main()
