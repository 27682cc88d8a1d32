"""The shared edge of the management side: app, errors, listing, documentation."""
