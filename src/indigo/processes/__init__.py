"""What can be started, and how the parts are wired together."""
