"""Trains the line scorer on recorded conversations, and says what it does on others."""
