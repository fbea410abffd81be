"""The mathematics: centroid attention, initialisers, the hierarchical encoder, heads. Knows tensors, never files."""
