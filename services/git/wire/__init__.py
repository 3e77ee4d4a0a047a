"""The contract's messages: `from_proto` reads and checks what is asked, `to_proto` writes what is answered.

Promises: a request that is wrong is refused with all that is wrong with it, before anything is done.
"""
