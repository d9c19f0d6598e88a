"""`sluice connect`: points a coding agent at the proxy, in the agent's own settings, and takes it back."""
