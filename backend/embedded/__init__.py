"""The embedded engine: a model in this process's own worker thread."""
