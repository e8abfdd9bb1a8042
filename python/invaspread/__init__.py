"""Random views, a loader for PyTorch loops, and metrics of embeddings with intervals, in Rust.

    from invaspread import Loader, TwoViews

    loader = Loader(images, TwoViews(size=32), batch_size=128, seed=0)
    for (first, second), labels, index in loader:    # float32 arrays (128, 3, 32, 32)
        ...
"""

from ._native import __version__
from .loader import Batch, Loader
from .metrics import Classified, Clusters, Votes, cluster, knn, linear, measure, retrieval
from .views import MultiCrop, OneView, TwoViews, Views
from .weights import load_weights

__all__ = [
    "Batch",
    "Classified",
    "Clusters",
    "Loader",
    "MultiCrop",
    "OneView",
    "TwoViews",
    "Views",
    "Votes",
    "__version__",
    "cluster",
    "knn",
    "linear",
    "load_weights",
    "measure",
    "retrieval",
]
