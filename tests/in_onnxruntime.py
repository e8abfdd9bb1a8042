"""Runs exported ONNX models in onnxruntime and compares their outputs with those of invaspread.

    python tests/in_onnxruntime.py FOLDER

FOLDER holds a folder for each case, as tests/onnx.rs writes them: model.onnx; images.f32, the normalized images (N, C, S, S);
expected.f32, the output of invaspread's own network; case.json, their shapes. Each model runs on all images at once and on the
first alone. Needs onnxruntime and numpy; if onnx is installed, its checker reads each model too.
"""

import json
import pathlib
import sys

import numpy
import onnxruntime

try:
    import onnx
except ImportError:
    onnx = None

# The largest difference of a number of an embedding; of outputs with larger numbers than 1, in parts of the largest.
TOLERANCE = 1e-4


def largest_difference(folder):
    case = json.loads((folder / "case.json").read_text())
    images = numpy.fromfile(folder / "images.f32", "<f4").reshape(case["images"])
    expected = numpy.fromfile(folder / "expected.f32", "<f4").reshape(case["expected"])
    model = str(folder / "model.onnx")
    if onnx is not None:
        onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    assert given.shape == ["N", *case["images"][1:]], given.shape
    assert output.name == case["output"] and output.shape == ["N", case["expected"][1]], (output.name, output.shape)
    (all_at_once,) = session.run(None, {given.name: images})
    (first,) = session.run(None, {given.name: images[:1]})
    assert all_at_once.shape == expected.shape and first.shape == expected[:1].shape
    # The comparison of a NaN is false, so the largest difference is taken with NaN as the largest.
    differences = [numpy.abs(all_at_once - expected).max(), numpy.abs(first - expected[:1]).max()]
    largest = max(1.0, float(numpy.abs(expected).max()))
    return max(float("inf") if numpy.isnan(each) else float(each) / largest for each in differences)


def main():
    folders = sorted(path.parent for path in pathlib.Path(sys.argv[1]).glob("*/case.json"))
    if not folders:
        sys.exit(f"error: found no case in {sys.argv[1]}, expected folders with case.json")
    print(f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__ if onnx else 'not installed'}")
    failed = False
    for folder in folders:
        difference = largest_difference(folder)
        print(f"{folder.name:<32} largest difference {difference:.1e}")
        failed |= not difference <= TOLERANCE
    sys.exit(f"error: a difference is larger than {TOLERANCE}" if failed else 0)


main()
