"""Jobs for machines that cannot reach the database: claims, leases, what there is to do, events, and ends, by RPC.

A coordinator is a cell like any other: what it claims it claims by a ledger of its own, which the gateway that it calls
keeps for it. Nothing of it is held in a gateway's memory, so every call may go to another gateway.
"""
