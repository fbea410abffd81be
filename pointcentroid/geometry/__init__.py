"""Arrays in, arrays out: sampling, normalisation, farthest points, neighbours, rotations.

Nothing here knows what a file, a model or a class is. `sampling`, `farthest`, `nearest` and `axes` use numpy alone, so that
predicting never pays for importing torch; the rest works on torch tensors of any device.
"""
