"""What Alembic runs: the migrations over the connection that `run.py` hands it, in its transaction."""

from __future__ import annotations

from alembic import context

from indigo.migrations.metadata import all_tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=all_tables(),
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
