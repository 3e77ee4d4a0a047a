"""Owns the database's tables, all of them, and what every statement on them shares.

That is the database's clock, types of columns, pages, the ids of requests that were made, and whose a row is. Promises
that a database which is opened has the newest schema. A column is named as the field of the value that it keeps.
"""
