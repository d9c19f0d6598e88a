"""Where a network scores lines: in this process, in one of its own, or on a vLLM; and what is counted of it."""
