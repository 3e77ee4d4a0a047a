"""Owns all tables of the gateway's database, and what the statements on them share.

That is the database's clock, column types, pages, the ids of requests that were made, and which project a row belongs
to. Promises that an opened database has the newest schema. A column has the name of the field that it stores.
"""
