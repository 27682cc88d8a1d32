"""Change notices between processes."""
