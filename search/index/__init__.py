"""From a tree on disk to arrays that a question can be put to: scan, tokenise, segment, store, postings, look-ups."""
