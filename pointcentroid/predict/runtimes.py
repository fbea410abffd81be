"""Which of the two runtimes answers for a net.

ONNX Runtime answers where the weights have a graph (`small.onnx` beside `small.safetensors`): it is loaded in a tenth of the
time of torch. Torch answers on other devices, for weights of one's own, and for nets that were changed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, get_args

from pointcentroid.errors import ConfigError, require
from pointcentroid.predict.nets import PredictingNet
from pointcentroid.weights import graph_of

Runtime = Literal["auto", "onnx", "torch"]


def open_net(weights: Path, device: str = "auto", runtime: Runtime = "auto", **changes: Any) -> PredictingNet:
    """Load a classifier.

    Args:
        weights: a weights file, or an exported graph.
        device: `"auto"`, `"cpu"`, or another device of torch.
        runtime: `"auto"`: ONNX Runtime where there is a graph and nothing else is asked for, else torch.
        changes: fields of `EncoderConfig` to change in the trained net, which only torch can do.

    Raises:
        ConfigError: there is no such device, a change is unknown, or the runtime cannot do what is asked.
        MissingExtraError: torch is needed and not installed.
        WeightsError: the weights are damaged.
    """
    if runtime not in get_args(Runtime):
        raise ConfigError(f"runtime must be one of {', '.join(get_args(Runtime))}, found {runtime!r}")
    graph = graph_of(weights)
    only = runtime == "onnx" or graph == weights
    stale = False
    if runtime != "torch" and device in ("auto", "cpu") and not changes and graph.is_file():
        from pointcentroid.predict.onnx_net import OnnxNet

        net = OnnxNet(graph, weights)
        if net.is_of(weights):
            return net
        if only:
            how = f"pointcentroid export {weights} -o {graph}"
            raise ConfigError(f"{graph} is of other weights than {weights}; this makes it anew: {how}")
        stale = True
        print(
            f"{graph} is of other weights than {weights}, so torch answers; pointcentroid export makes it anew",
            file=sys.stderr,
        )
    elif only and graph.is_file():
        raise ConfigError(
            f"{graph} runs on the CPU, as it is; other devices and changes need torch and the weights it is of"
        )
    if only:
        raise ConfigError(f"{weights} has no graph beside it; this makes one: pointcentroid export {weights} -o {graph}")
    made = f"`pointcentroid export {weights} -o {graph}`, run where torch is, makes one"
    asked = f"device={device}" if device not in ("auto", "cpu") else "a changed net" if changes else "runtime=torch"
    alone = f"a net without a graph of its own beside its weights ({made})"
    require(asked if graph.is_file() and not stale else alone, "torch", "torch")
    from pointcentroid.predict.torch_net import TorchNet

    return TorchNet(weights, device, **changes)
