"""Arrays in, arrays out: sampling, normalisation, farthest points, neighbours, rotations.

Nothing here knows what a file, a model or a class is. `sampling`, `normalise` and `orientation` use numpy alone, so that
reading processes never pay for importing torch; the rest works on torch tensors of any device.
"""
