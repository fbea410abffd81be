"""The one trainer: Lightning underneath, from configuration to weights file."""

from pointcentroid.train.run import train as train
