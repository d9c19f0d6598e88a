"""From a question and a view to line ranges: first which files, then which chunks, then which lines."""
