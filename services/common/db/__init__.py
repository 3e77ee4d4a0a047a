"""Databases as the house uses them: SQLite on one machine, PostgreSQL between several, through one async engine."""
