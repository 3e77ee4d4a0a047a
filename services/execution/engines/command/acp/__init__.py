"""The Agent Client Protocol, version 1, with a program in the sandbox: https://agentclientprotocol.com.

`connection` has requests and answers, `conversation` what is said from the first request to the proper end of a turn,
`updates` what the agent tells meanwhile, and `permissions` what becomes of what it asks. Lines are JSON that somebody
else wrote: what is not understood is kept as it is, and ends nothing. Standard library only.
"""
