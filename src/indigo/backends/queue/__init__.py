"""The spool: a crash-proof journal between the gateway and the database."""
