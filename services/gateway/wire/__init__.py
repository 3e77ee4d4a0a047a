"""What the wire modules of the gateway's packages share.

Request ids and pages; what a role may read of a response; and the messages that more than one package writes.
"""
