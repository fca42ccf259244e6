"""Convert the LPIPS network from a pickle to safetensors."""

from __future__ import annotations

from avatar.assets import safetensors_bytes


def lpips_from_pickle(data: bytes) -> bytes:
    """The AlexNet of LPIPS and its five heads, from a nested dictionary of arrays in pickle format.

    Args:
        data: The pickle; read by `avatar.assets.pickle_arrays`, so nothing in it can run.

    Returns:
        A safetensors file with ``features.Conv_i.weight`` [out, in, h, w], ``features.Conv_i.bias`` and
        ``lin{i}.weight`` [1, channels, 1, 1].
    """
    from avatar.assets.pickle_arrays import read_array_pickle

    tree = read_array_pickle(data)
    tensors = {}
    for layer, values in tree["AlexNet_0"].items():
        tensors[f"features.{layer}.weight"] = values["kernel"].transpose(3, 2, 0, 1).astype("<f4")
        tensors[f"features.{layer}.bias"] = values["bias"].astype("<f4")
    for layer, values in tree.items():
        if layer.startswith("NetLinLayer_"):
            kernel = values["Conv_0"]["kernel"].transpose(3, 2, 0, 1)
            tensors[f"lin{layer.removeprefix('NetLinLayer_')}.weight"] = kernel.astype("<f4")
    return safetensors_bytes.to_bytes(tensors)
