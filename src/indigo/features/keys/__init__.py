"""API keys: minted once, stored as a digest, compiled into grants."""
