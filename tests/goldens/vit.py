"""Makes transformer.safetensors and vit.safetensors: the operations of a vision transformer with their gradients by
PyTorch in f64, and whole networks by timm.

    python3 tests/goldens/vit.py [FOLDER] [SEED]      # FOLDER is tests/goldens and SEED is 0 if not given

It needs torch, timm and safetensors. The weights of the small networks are timm's initial ones plus noise, so that
every bias and gain counts; they are in the file. Those of the two networks of full size are given by the formula of
models.safetensors (README.md), where a 3-d tensor is 0.1 u.
"""

import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional

# images, tokens, heads, columns of a head
ATTENTION = [(1, 1, 1, 1), (2, 5, 3, 4), (3, 17, 2, 16), (1, 65, 3, 64)]
# rows, channels
NORM = [(1, 5), (7, 24), (130, 192)]
# side of the known positions, patches of the map, columns
POSITIONS = [(4, (4, 4), 6), (8, (6, 6), 5), (8, (4, 7), 3), (3, (7, 5), 4), (14, (6, 6), 2)]
# image, patch, channels, columns, blocks, heads, embedding, sides of further views
SMALL = [(32, 4, 3, 24, 2, 3, 10, [24, 16]), (32, 8, 1, 16, 3, 2, 7, [48]), (48, 16, 4, 12, 1, 1, 5, [32, 64])]
# timm's name, image, patch, images, number of the input
FULL = [("vit_tiny_patch16_224", 32, 4, 2, 4), ("vit_small_patch16_224", 224, 16, 1, 5)]


def random(*shape):
    # The numbers are rounded to f32 first, so that both programs compute on the same ones.
    return torch.randn(*shape, dtype=torch.float64).float().double()


def entries(name, inputs, y):
    """Returns the inputs, the result, a gradient of the result and the gradients of the inputs."""
    gy = random(*y.shape)
    gradients = torch.autograd.grad((y * gy).sum(), list(inputs.values()))
    found = {key: value.detach().float() for key, value in inputs.items()} | {"y": y.detach(), "gy": gy.float()}
    found |= {f"grad_{key}": gradient for key, gradient in zip(inputs, gradients)}
    return {f"{name}.{key}": value.clone().contiguous() for key, value in found.items()}


def layer_norm(rows, channels):
    inputs = {"x": random(rows, channels) + 3.0, "gamma": random(channels), "beta": random(channels)}
    inputs = {key: value.float().double().requires_grad_() for key, value in inputs.items()}
    y = functional.layer_norm(inputs["x"], (channels,), inputs["gamma"], inputs["beta"], 1e-6)
    return inputs, y


def attention(images, tokens, heads, dim):
    x = random(images * tokens, 3 * heads * dim).requires_grad_()
    # timm's Attention.
    q, k, v = x.reshape(images, tokens, 3, heads, dim).permute(2, 0, 3, 1, 4).unbind(0)
    y = functional.scaled_dot_product_attention(q, k, v)
    return {"x": x}, y.transpose(1, 2).reshape(images * tokens, heads * dim)


def offsets(side, grid, columns):
    shapes = {"bias": (columns,), "class": (1, 1, columns), "position": (1, 1 + side * side, columns)}
    inputs = {key: random(*shape).requires_grad_() for key, shape in shapes.items()}
    # timm's resample_abs_pos_embed, in f64.
    first, rest = inputs["position"][:, :1], inputs["position"][:, 1:]
    if grid != (side, side):
        rest = rest.reshape(1, side, side, columns).permute(0, 3, 1, 2)
        rest = functional.interpolate(rest, size=grid, mode="bicubic", antialias=True)
        rest = rest.permute(0, 2, 3, 1).reshape(1, -1, columns)
    return inputs, torch.cat([inputs["class"] + first, rest + inputs["bias"]], dim=1)[0]


def operations():
    tensors = {}
    x = torch.cat([random(300) * 3, torch.tensor([0.0, -6.0, 6.0, 20.0, -20.0], dtype=torch.float64)])
    x = x.float().double().requires_grad_()
    tensors |= entries("gelu.0", {"x": x}, functional.gelu(x))
    for case, sizes in enumerate(NORM):
        tensors |= entries(f"layer_norm.{case}", *layer_norm(*sizes))
    for case, sizes in enumerate(ATTENTION):
        tensors |= entries(f"attention.{case}", *attention(*sizes))
        tensors[f"attention.{case}.sizes"] = torch.tensor(sizes)
    for case, (side, grid, columns) in enumerate(POSITIONS):
        tensors |= entries(f"offsets.{case}", *offsets(side, grid, columns))
        tensors[f"offsets.{case}.grid"] = torch.tensor(grid)
    return tensors


def outputs(network, images):
    pooled = network.forward_head(network.forward_features(images), pre_logits=True)
    return pooled, functional.normalize(network.head(pooled))


def small(case, image, patch, channels, columns, blocks, heads, embedding, further):
    network = VisionTransformer(
        img_size=image, patch_size=patch, in_chans=channels, embed_dim=columns, depth=blocks, num_heads=heads,
        num_classes=embedding, dynamic_img_size=True,
    )
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    tensors = {f"small.{case}.weights.{name}": value.clone() for name, value in network.state_dict().items()}
    sizes = (image, patch, channels, columns, blocks, heads, embedding)
    tensors[f"small.{case}.sizes"] = torch.tensor(sizes)
    network = network.double()
    for view, side in enumerate([image, *further]):
        images = random(3, channels, side, side)
        pooled, rows = outputs(network, images)
        weights = random(*rows.shape)
        network.zero_grad()
        (rows * weights).sum().backward()
        found = {"images": images.float(), "pooled": pooled.detach(), "embedding": rows.detach()}
        found |= {"gradient": weights.float()}
        found |= {f"grad.{name}": value.grad.clone() for name, value in network.named_parameters()}
        tensors |= {f"small.{case}.view.{view}.{key}": value.contiguous() for key, value in found.items()}
    return tensors


def hashed(k, count, seed):
    """The hash of the README for the flat indices below `count`."""
    mask = 0xFFFFFFFF
    x = torch.arange(count, dtype=torch.int64)
    # Products stay below 2^63 if both factors are below 2^31 and 2^32; the larger one is split.
    def times(x, factor):
        low, high = x & 0xFFFF, x >> 16
        return (low * factor + ((high * factor & 0xFFFF) << 16)) & mask
    x = (times(x, 2654435761) + k * 40503 + 12345 + seed * 7919) & mask
    x = x ^ (x >> 16)
    x = times(x, 0x85EBCA6B)
    x = x ^ (x >> 13)
    x = times(x, 0xC2B2AE35)
    x = x ^ (x >> 16)
    return x.double() / 2**32 - 0.5


def full(name, image, patch, count, number, seed):
    network = timm.create_model(name, img_size=image, patch_size=patch, num_classes=128)
    for k, (key, value) in enumerate(network.state_dict().items()):
        u = hashed(k, value.numel(), seed).reshape(value.shape)
        fan_in = value.numel() // value.shape[0]
        if value.dim() == 4:
            u = u * 12**0.5 * (2 / fan_in) ** 0.5
        elif value.dim() == 3:
            u = 0.1 * u
        elif value.dim() == 2:
            u = u * 12**0.5 * (1 / fan_in) ** 0.5
        elif key.endswith("bias"):
            u = 0.1 * u
        else:
            u = 1 + 0.1 * u
        value.copy_(u)
    images = (hashed(1000 + number, count * 3 * image * image, seed) * 12**0.5).reshape(count, 3, image, image)
    with torch.no_grad():
        # The weights and the images are f32 in both programs.
        pooled, rows = outputs(network.double(), images.float().double())
    return {f"{name}.pooled": pooled, f"{name}.embedding": rows}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    torch.manual_seed(seed)
    made_with = {"made_with": f"torch {torch.__version__}, timm {timm.__version__}"}
    save_file(operations(), folder / "transformer.safetensors", made_with)
    tensors = {"seed": torch.tensor(seed)}
    for case, sizes in enumerate(SMALL):
        tensors |= small(case, *sizes)
    for sizes in FULL:
        tensors |= full(*sizes, seed)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "vit.safetensors", made_with)


main()
