#!/usr/bin/env python3
"""Writes fuzz/corpus/weights_pickle/torch*, which the tests read too: files of torch.save in the forms before and
after PyTorch 1.6.

  samples.py FOLDER

PyTorch 1.12.1 wrote the files that are there. PyTorch 1.0.0, which has only the older form, wrote those called
torch1.0_*.
"""
import argparse
import collections
import inspect
import pathlib
import sys

import torch
from torch import nn

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
version = ".".join(torch.__version__.split(".")[:2])
zip_form = hasattr(torch.serialization, "_open_zipfile_writer")


def no_source(_):
    raise OSError("the older form keeps the source of classes; these files are to be small")


inspect.getsourcelines = no_source


def save(thing, name, zipped=False, **settings):
    if zip_form:
        settings["_use_new_zipfile_serialization"] = zipped
    torch.save(thing, str(folder / f"torch{version}_{name}"), **settings)


class Block(nn.Module):
    """The block of the released code's models/resnet_cifar.py."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet18(nn.Module):
    """The network of the same file, with one channel instead of 64 and an embedding of 2 numbers."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 1, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(1)
        inputs = 1
        for stage, outputs in enumerate([1, 2, 4, 8], 1):
            blocks = [Block(inputs, outputs, min(stage, 2)), Block(outputs, outputs, 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            inputs = outputs
        self.linear = nn.Linear(8, 2)


def filled(network):
    """Sets value j of entry k to ((31 k + 7 j) mod 101 - 50) / 64, and to its absolute value in a running variance."""
    for k, (name, entry) in enumerate(network.state_dict().items()):
        values = [((31 * k + 7 * j) % 101 - 50) / 64 for j in range(entry.numel())]
        if name.endswith("running_var"):
            values = [abs(value) for value in values]
        if name.endswith("num_batches_tracked"):
            values = [k]
        entry.copy_(torch.tensor(values, dtype=entry.dtype).reshape(entry.shape))
    return network


network = filled(ResNet18())
weight = torch.arange(6, dtype=torch.float32).reshape(2, 3)
entries = collections.OrderedDict(
    weight=weight,
    turned=weight.t(),
    late=weight.reshape(-1)[3:],
    tied=weight,
    parameter=nn.Parameter(torch.tensor([1.5, -2.5])),
    half=torch.tensor([0.5, 65504.0]).half(),
    double=torch.tensor([1e39], dtype=torch.float64),
    count=torch.tensor(7),
    bytes=torch.tensor([0, 255], dtype=torch.uint8),
)
if zip_form:
    entries["brain"] = torch.tensor([1.0, -3.0]).bfloat16()
    entries["mask"] = torch.tensor([True, False])
    entries["sparse"] = torch.sparse_coo_tensor([[0, 1]], [1.0, 2.0], [2])

save(entries, "entries")
if not zip_form:
    # The released code saves its files like this one, as NAME_best.t.
    save({"net": network.state_dict(), "acc": 83.6, "epoch": 3}, "released_best.t")
    sys.exit()
save(entries, "entries.pth.tar", zipped=True)
save(entries, "protocol4", pickle_protocol=4)
save(entries, "protocol4.bin", zipped=True, pickle_protocol=4)
small = nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(1, 1, 1), norm=nn.BatchNorm2d(1)))
filled(small)
save(nn.DataParallel(small), "module.pt", zipped=True)
save(nn.DataParallel(small), "module")
optimizer = torch.optim.SGD(small.parameters(), 0.1, momentum=0.9)
small(torch.ones(2, 1, 2, 2)).sum().backward()
optimizer.step()
save(
    {
        "epoch": 3,
        "best_acc1": torch.tensor(70.5),
        "hyper_parameters": argparse.Namespace(lr=0.1, name="x"),
        "state_dict": collections.OrderedDict((f"model.{name}", entry) for name, entry in small.state_dict().items()),
        "optimizer_states": [optimizer.state_dict()],
        "ema": {"shadow": small.state_dict(), "decay": 0.999},
    },
    "nested.ckpt",
    zipped=True,
)
