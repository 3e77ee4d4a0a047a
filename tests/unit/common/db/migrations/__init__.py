"""A small schema for the database tests."""
