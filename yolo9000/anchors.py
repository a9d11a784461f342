"""Dimension clusters (paper section 2): k-means over box shapes with distance 1 - IoU."""

import torch
from torch import Tensor

from wordtree import WordTreeError

from .boxes import shape_iou

STARTS = 8  # k-means ends in a local optimum; the best of several starts is kept


def dimension_clusters(shapes: Tensor, k: int, seed: int = 0, rounds: int = 100) -> tuple[Tensor, float]:
    """Find k priors.

    Args:
        shapes: float [n, 2], width and height of each training box, in any one unit.
        k: how many priors.
        seed: of the starts, k-means++ on the same distance; the best of eight is kept.
        rounds: at most so many; it stops when no shape changes its cluster.

    Returns:
        float [k, 2] in the unit given, by area; and the mean IoU of the shapes with their best prior.

    Raises:
        WordTreeError: fewer different shapes than priors, or a side that is not positive.

    Example:
        >>> shapes = torch.tensor([[10.0, 10.0], [11.0, 9.0], [50.0, 52.0], [49.0, 50.0]])
        >>> priors, mean_iou = dimension_clusters(shapes, k=2)
        >>> priors.round().tolist(), mean_iou > 0.9
        ([[10.0, 10.0], [50.0, 51.0]], True)
    """
    if shapes.dim() != 2 or shapes.shape[1] != 2 or not bool((shapes > 0).all()):
        raise WordTreeError(f"box shapes of shape {tuple(shapes.shape)}; give [n, 2], width and height above 0")
    if k < 1 or len(torch.unique(shapes, dim=0)) < k:
        raise WordTreeError(f"{k} anchors of {len(torch.unique(shapes, dim=0))} different box shapes; ask for fewer")
    shapes = shapes.double()
    generator = torch.Generator().manual_seed(seed)
    tries = [_cluster(shapes, k, generator, rounds) for _ in range(STARTS)]
    priors, mean_iou = max(tries, key=lambda one: one[1])
    return priors.float(), mean_iou


def _cluster(shapes: Tensor, k: int, generator: torch.Generator, rounds: int) -> tuple[Tensor, float]:
    """One run from one random start. float64 [n, 2] -> float64 [k, 2] by area, and the mean IoU."""
    priors = shapes[torch.randint(len(shapes), (1,), generator=generator)]
    while len(priors) < k:
        far = 1 - shape_iou(shapes, priors).amax(1)
        pick = torch.multinomial(far.clamp(min=1e-12), 1, generator=generator)
        priors = torch.cat((priors, shapes[pick]))
    nearest = torch.full((len(shapes),), -1)
    for _ in range(rounds):
        now = shape_iou(shapes, priors).argmax(1)
        if torch.equal(now, nearest):
            break
        nearest = now
        count = torch.bincount(nearest, minlength=k).clamp(min=1)[:, None]
        means = torch.zeros_like(priors).index_add(0, nearest, shapes) / count
        priors = torch.where(means > 0, means, priors)  # a prior that lost every shape stays where it was
    priors = priors[priors.prod(1).argsort()]
    return priors, float(shape_iou(shapes, priors).amax(1).mean())
