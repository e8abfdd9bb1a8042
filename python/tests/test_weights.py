"""Files of weights as arrays."""

import json
import struct

import numpy as np
import pytest

from invaspread import load_weights


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, array in tensors.items():
        header[name] = {
            "dtype": f"{array.dtype.kind.upper()}{8 * array.itemsize}",
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_tensors_keep_their_names_types_and_shapes(tmp_path):
    tensors = {
        "linear.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
        "linear.bias": np.array([1.5, -2.5], dtype=np.float64),
        "bn.num_batches_tracked": np.array(7, dtype=np.int64),
        "half": np.array([0.5, 2.0], dtype=np.float16),
    }
    path = tmp_path / "weights"
    write_safetensors(path, tensors)
    read = load_weights(path)
    assert list(read) == sorted(tensors)
    for name, array in tensors.items():
        assert read[name].shape == array.shape and np.array_equal(read[name], array)
    assert read["half"].dtype == np.float32 and read["linear.bias"].dtype == np.float64


def test_a_file_of_pytorch_loads_strictly_where_it_came_from(tmp_path):
    torch = pytest.importorskip("torch")
    layers = [torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)) for _ in range(2)]
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, "net": layers[0].state_dict()}, path)
    read = load_weights(path, within="net")
    report = layers[1].load_state_dict({name: torch.from_numpy(array) for name, array in read.items()}, strict=True)
    assert not report.missing_keys
    assert all(torch.equal(a, b) for a, b in zip(layers[0].state_dict().values(), layers[1].state_dict().values()))
    torch.save({"student": layers[0].state_dict(), "teacher": layers[1].state_dict()}, path)
    with pytest.raises(ValueError, match="within=NAME"):
        load_weights(path)


@pytest.mark.parametrize(
    ("dtype", "value", "told"),
    [
        (np.float32, np.nan, r"NaN at \[1, 0\], one of 4 values"),
        (np.float64, -np.inf, r".*infinity at \[1, 0\]"),
        (np.float16, np.inf, r".*infinity at \[1, 0\]"),
    ],
)
def test_a_tensor_that_is_not_finite_is_named(tmp_path, dtype, value, told):
    path = tmp_path / "diverged"
    tensors = {"bn.count": np.array(7, np.int64), "conv.weight": np.array([[1, 2], [value, 4]], dtype)}
    write_safetensors(path, tensors)
    with pytest.raises(ValueError, match=f"diverged: conv.weight holds {told}"):
        load_weights(path)


def test_whole_numbers_keep_all_their_digits(tmp_path):
    # 2**24 + 1 is not a float32.
    tensors = {"ids": np.array([2**24 + 1, -1], np.int32), "short": np.array([[2**15 - 1], [-(2**15)]], np.int16)}
    write_safetensors(tmp_path / "weights", tensors)
    read = load_weights(tmp_path / "weights")
    torch = pytest.importorskip("torch")
    more = {name: torch.from_numpy(array) for name, array in tensors.items()}
    torch.save(more | {"mask": torch.tensor([True]), "tiny": torch.tensor([1], dtype=torch.int8)}, tmp_path / "weights.pth")
    with pytest.warns(UserWarning, match="mask: a tensor of BoolStorage, tiny: a tensor of CharStorage"):
        of_torch = load_weights(tmp_path / "weights.pth")
    for found in (read, of_torch):
        assert found.keys() == tensors.keys()
        for name, array in tensors.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


def test_an_argument_of_another_type_is_named(tmp_path):
    with pytest.raises(TypeError, match="path: found int 5, expected a path"):
        load_weights(5)
    with pytest.raises(TypeError, match="within: found int 5"):
        load_weights(tmp_path, within=5)


def test_what_is_no_file_of_weights_is_told(tmp_path):
    with pytest.raises(ValueError, match="absent"):
        load_weights(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="text"):
        load_weights(tmp_path / "text")
    write_safetensors(tmp_path / "cut", {"a": np.ones(8, np.float32)})
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-4])
    with pytest.raises(ValueError, match="cut"):
        load_weights(tmp_path / "cut")
