"""Arrays in, arrays out: sampling, normalisation, farthest points, neighbours, rotations.

Nothing here knows what a file, a model or a class is. `sampling`, `farthest`, `nearest`, `axes`, `box` and `surface` use
numpy alone, so that predicting never pays for importing torch; `fps`, `neighbours` and `chamfer` work on torch tensors, on
any device.
"""
