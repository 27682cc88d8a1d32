"""What several suites share: servers, databases, scripted worlds."""
