"""Who used what: one event for every admitted request, stored exactly once."""
