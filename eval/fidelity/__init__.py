"""Does a model still expect the agent's real next message, once the context before it is smaller?

The negative log-likelihood of what the agent really wrote, under the full context and under what a policy forwards.
"""
