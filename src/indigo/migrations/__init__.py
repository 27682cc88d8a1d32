"""The database schema's history; the same versions run on SQLite and PostgreSQL."""
