"""The contract's messages: `from_proto` reads what is asked, `to_proto` writes what is answered.

Before a request is read it has been held to the contract's rules and to `checks`.
"""
