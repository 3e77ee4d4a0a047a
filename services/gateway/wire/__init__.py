"""What the wire modules of the gateway's packages share.

A validator, which collects every violation of a request; times; pages; what a role may read of a response; and the
messages that more than one package writes.
"""
