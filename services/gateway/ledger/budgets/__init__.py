"""The books of budgets: what requests to models may need is reserved before they are sent, and settled when they end.

uses          the rows where it is counted: locked in one order, looked at, and written at once
bounds        which budgets bind a request, and which of them refuses it
shares        tells people how much of a budget is spent
reservations  the transactions of a driver, in which all budgets have a request or none

Everything here works inside the caller's transaction, under the lock of the job's row: nothing can be reserved for an
attempt that has ended, so nothing stays reserved.
"""
