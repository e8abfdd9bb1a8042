"""Trains a ResNet-18 in PyTorch with NT-Xent on views of invaspread, and measures it with invaspread.

    python examples/train.py [FOLDER of cifar-10-batches-py] [EPOCHS]

Without a folder, it trains on noise with a color for each class.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

from invaspread import Loader, OneView, TwoViews, measure


def cifar10(folder, files):
    batches = [pickle.loads((Path(folder) / name).read_bytes(), encoding="latin1") for name in files]
    pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.concatenate([batch["labels"] for batch in batches])


def colors(count, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count)
    shades = np.random.default_rng(0).integers(40, 216, (10, 1, 1, 3))
    return (shades[labels] + random.integers(-40, 40, (count, 32, 32, 3))).astype(np.uint8), labels


def embed(network, images, labels):
    plain = OneView(32, scale=(1, 1), ratio=(1, 1), jitter=None, grayscale=0, flip=0)
    loader = Loader(images, plain, 256, labels=labels, shuffle=False, drop_last=False, output="torch")
    network.eval()
    with torch.no_grad():
        found = [(network(view), labels) for (view,), labels, _ in loader]
    return [torch.cat(parts) for parts in zip(*found)]


if len(sys.argv) > 1:
    train = cifar10(sys.argv[1], [f"data_batch_{number}" for number in range(1, 6)])
    test = cifar10(sys.argv[1], ["test_batch"])
else:
    train, test = colors(1024, 1), colors(256, 2)
torch.manual_seed(0)
network = torchvision.models.resnet18(num_classes=128).to(memory_format=torch.channels_last)
network.conv1, network.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
loader = Loader(train[0], TwoViews(32), batch_size=64, seed=0, output="torch")
for epoch in range(int(sys.argv[2]) if len(sys.argv) > 2 else 1):
    network.train()
    for (first, second), _, index in loader:
        rows = F.normalize(network(torch.cat([first, second])))
        logits = (rows @ rows.T / 0.1).fill_diagonal_(-torch.inf)
        loss = F.cross_entropy(logits, torch.arange(len(rows)).roll(len(index)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = measure(*embed(network, *test), *embed(network, *train))
    low, high = found["intervals"]["knn_top1"]
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}, kNN {found['metrics']['knn_top1']:.1f}% ({low:.1f} to {high:.1f})")
