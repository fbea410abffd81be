"""Data sets for training and evaluation: where they come from, how they are split, how they are varied."""
