"""How fast lines are scored, by networks and by features, and what that adds to requests."""
