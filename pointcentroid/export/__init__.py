"""Trained nets for other runtimes."""
