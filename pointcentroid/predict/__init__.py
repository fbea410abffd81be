"""A file or an array in, an answer out."""
