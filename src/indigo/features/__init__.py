"""What people manage. Each feature may use only those below it: usage > keys > models > tenancy."""
