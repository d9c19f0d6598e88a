"""What requests used, what they cost, and what they would have cost untouched. Keeps counts and ids, never content."""
