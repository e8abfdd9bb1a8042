"""Files of weights."""

from __future__ import annotations

import os
import warnings

import numpy as np

from . import _native
from ._checks import word, wrong_type


def load_weights(path: str | os.PathLike[str], *, within: str | None = None) -> dict[str, np.ndarray]:
    """Returns the tensors of a file of weights by name, as `load_state_dict` takes them once each is made a
    tensor with `torch.from_numpy`.

    Reads safetensors (also a checkpoint of a run), files of `torch.save` without running code from them, Caffe
    models and HDF5; the content of the file decides, not its name. Runs of invaspread have PyTorch's names.
    float16 and bfloat16 become float32; all other types stay, so that whole numbers keep their digits. A warning names the
    entries that are left out: tensors of booleans, int8, complex numbers and other types than uint8, int16, int32, int64,
    float16, bfloat16, float32 and float64 (safetensors has uint32 too, HDF5 no int16, int32 and bfloat16), and sparse and
    quantized tensors.

    Args:
        path: The file.
        within: Which state dict to take from a file with several, or the beginning of the names to take.

    Raises:
        ValueError: If the file is missing, damaged or of another kind, holds several state dicts, or a tensor holds a NaN or
            an infinity, which no network can use; the message names the tensor.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise wrong_type("path", path, "a path")
    within = None if within is None else word(within, "within", "a name or None")
    tensors, not_read = _native.load_weights(os.fsdecode(path), within)
    if not_read:
        warnings.warn(f"{path}: not read: {', '.join(not_read)}", stacklevel=2)
    return tensors
