"""Makes views.safetensors: Gaussian blur and solarization by torchvision on Pillow images, byte for byte.

    python3 tests/goldens/views.py [FOLDER] [SEED]    # FOLDER is tests/goldens and SEED is 0 if not given

It needs torch, torchvision, Pillow and safetensors. PyTorch must use its AVX2 kernels
(ATEN_CPU_CAPABILITY=avx2, which the program sets), because the order of the sum of a Gaussian's weights is theirs.

    python3 tests/goldens/views.py --random FOLDER [SEED]

writes 2,000 random images in the same form, to see whether PyTorch's exponential, which is not always correctly
rounded, changes a byte (INVASPREAD_GOLDENS=FOLDER cargo test -p invaspread-augment --test goldens blur).
"""

import os
import sys
from pathlib import Path

os.environ["ATEN_CPU_CAPABILITY"] = "avx2"

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.numpy import save_file
from torchvision.transforms import functional

# width, height, kernel, sigma
CASES = [
    (32, 32, 23, 0.1),
    (32, 32, 23, 2.0),
    (32, 32, 3, 0.7),
    (24, 24, 23, 1.3),
    (12, 17, 23, 1.9),
    (40, 9, 5, 0.3),
    (7, 5, 7, 3.0),
    (96, 96, 9, 1.1),
    (48, 40, 41, 8.0),
]
THRESHOLDS = [128, 0, 1, 255, 77]


def picture(generator, width, height):
    """Noise, edges and slopes, each in a third of the rows."""
    noise = generator.integers(0, 256, (height, width, 3))
    edges = 255 * generator.integers(0, 2, (height, width, 3))
    slope = np.linspace(0, 255, width)[None, :, None] * generator.random((height, 1, 3))
    part = (np.arange(height) * 3 // height)[:, None, None]
    return np.where(part == 0, noise, np.where(part == 1, edges, slope)).astype(np.uint8)


def main() -> None:
    arguments = sys.argv[1:]
    random = arguments[:1] == ["--random"]
    arguments = arguments[random:]
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    generator = np.random.default_rng(int(arguments[1]) if len(arguments) > 1 else 0)
    cases = CASES
    if random:
        cases = [(32, 32, 23, float(sigma)) for sigma in generator.uniform(0.1, 2.0, 2000)]
    tensors = {}
    for number, (width, height, kernel, sigma) in enumerate(cases):
        pixels = picture(generator, width, height)
        blurred = functional.gaussian_blur(Image.fromarray(pixels), [kernel, kernel], [sigma, sigma])
        tensors |= {
            f"blur.{number}.input": pixels,
            f"blur.{number}.kernel": np.int64(kernel),
            f"blur.{number}.sigma": np.float64(sigma),
            f"blur.{number}.output": np.asarray(blurred),
        }
    for number, threshold in enumerate(THRESHOLDS):
        pixels = picture(generator, 31, 30)
        tensors |= {
            f"solarize.{number}.input": pixels,
            f"solarize.{number}.threshold": np.int64(threshold),
            f"solarize.{number}.output": np.asarray(functional.solarize(Image.fromarray(pixels), threshold)),
        }
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    made_with = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {Image.__version__}"
    save_file(tensors, folder / "views.safetensors", {"made_with": made_with})


main()
