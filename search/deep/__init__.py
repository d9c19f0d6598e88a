"""A small model that looks around in a context of its own and answers with line ranges that it has seen."""
