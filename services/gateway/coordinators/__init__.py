"""Jobs for machines that cannot reach the database: claims, leases, work contexts, events and endings, by RPC.

A coordinator is a cell like any other: it claims jobs through a ledger of its own, which is run by the gateway that it
calls. No gateway keeps a coordinator's state in memory, so each call may go to another gateway.
"""
