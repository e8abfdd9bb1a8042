"""One training step of SimCLR, MoCo v2 and BYOL as a user of lightly writes it: lightly's heads, losses and momentum update around a
PyTorch network, in the order of the examples in lightly's documentation. Heads and queue have the sizes of our recipes in
experiments/method; lightly's own sizes are for ImageNet.
"""
from __future__ import annotations

import copy, math
from typing import Callable


class WithHead:
    """The network and its projection head, which the optimizer and the momentum update treat alike."""

    def __init__(self, backbone, head):
        self.backbone, self.head = backbone, head

    def __call__(self, x):
        return self.head(self.backbone(x))

    def parameters(self) -> list:
        return [*self.backbone.parameters(), *self.head.parameters()]

    def momentum_copy(self) -> "WithHead":
        from lightly.models.utils import deactivate_requires_grad
        other = WithHead(copy.deepcopy(self.backbone), copy.deepcopy(self.head))
        deactivate_requires_grad(other.backbone)
        deactivate_requires_grad(other.head)
        return other

    def lead(self, follower: "WithHead", momentum: float) -> None:
        from lightly.models.utils import update_momentum
        update_momentum(self.backbone, follower.backbone, m=momentum)
        update_momentum(self.head, follower.head, m=momentum)


# Each function takes the network without its last layer and the length of its output, and returns the loss of a batch of views, and the
# parameters to train. The loss is a function of the views, those of all images above their second views, and of the part of the training
# that is done. The passes are those of our methods: both views in one where ours has one.


def simclr(backbone, features: int) -> tuple[Callable, list]:
    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import ProjectionHead
    from torch import nn
    # The head of lightly's benchmark on CIFAR-10: no batch norm behind the last layer.
    head = ProjectionHead([(features, 512, nn.BatchNorm1d(512), nn.ReLU()), (512, 128, None, None)])
    model, criterion = WithHead(backbone, head), NTXentLoss(temperature=0.5)

    def loss(views, part=0.0):
        return criterion(*model(views).float().chunk(2))

    return loss, model.parameters()


def moco_v2(backbone, features: int) -> tuple[Callable, list]:
    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    model = WithHead(backbone, MoCoProjectionHead(features, 512, 128))
    keys, criterion = model.momentum_copy(), NTXentLoss(temperature=0.1, memory_bank_size=(4096, 128))

    def loss(views, part=0.0):
        model.lead(keys, 0.99)
        first, second = views.chunk(2)
        query = model(first)
        with torch.no_grad():
            key = keys(second)
        return criterion(query.float(), key.float())

    return loss, model.parameters()


def byol(backbone, features: int) -> tuple[Callable, list]:
    import torch
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    model, predictor = WithHead(backbone, BYOLProjectionHead(features, 4096, 256)), BYOLPredictionHead(256, 4096, 256)
    target, criterion = model.momentum_copy(), NegativeCosineSimilarity()

    def loss(views, part=0.0):
        # The momentum rises from 0.99 to 1 along half a cosine.
        model.lead(target, 1 - 0.01 * (math.cos(math.pi * part) + 1) / 2)
        first, second = views.chunk(2)
        predictions = [predictor(model(view)).float() for view in (first, second)]
        with torch.no_grad():
            targets = [target(view).float() for view in (first, second)]
        # The paper's loss is the squared distance, 2 - 2 cos, of both directions; lightly's examples take a quarter of it.
        return 2 * (criterion(predictions[0], targets[1]) + criterion(predictions[1], targets[0]))

    return loss, [*model.parameters(), *predictor.parameters()]


def barlow_twins(backbone, features: int) -> tuple[Callable, list]:
    from lightly.loss import BarlowTwinsLoss
    from lightly.models.modules import BarlowTwinsProjectionHead
    model, criterion = WithHead(backbone, BarlowTwinsProjectionHead(features, 2048, 2048)), BarlowTwinsLoss(lambda_param=0.0051)

    def loss(views, part=0.0):
        return 0.1 * criterion(*model(views).float().chunk(2))

    return loss, model.parameters()


METHODS = {"simclr": simclr, "moco_v2": moco_v2, "byol": byol, "barlow_twins": barlow_twins}
