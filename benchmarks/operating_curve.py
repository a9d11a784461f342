"""Two ways to parameterise a tree, on one operating curve: a softmax a group, and one softmax over the leaves.

    python benchmarks/operating_curve.py                                # prints both, for five seeds
    python benchmarks/operating_curve.py --picture docs/operating-curve.png

A linear layer of each form is trained on the features of the shipped checkpoint's trunk, of drawings cut out of the
embedded set, with its fine labels; it is tested on the same drawings in other scenes, and on a family of drawings that
neither the trunk nor the layer has seen. The curve (Valmadre, NeurIPS 2022) shows the share of correct answers against
how much of the truth the answers tell, as the threshold on Pr falls; its area is what one number can say of it.
"""

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

import yolo9000
from wordtree import WordTree
from wordtree.metrics import Curve, operating_curve
from wordtree.nn import pareto, tree_cross_entropy, tree_log_prob
from yolo9000.charts import draw_told
from yolo9000.data.embedded import Pictures, label_map
from yolo9000.detector import Detector

FORMS = {"conditional": "a softmax a group", "leaf": "one softmax over the leaves"}
SIDE = 96  # pixels of a cut-out


def main() -> None:
    """Train, test, print, and draw where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4000, help="training pictures")
    parser.add_argument("--scenes", type=int, default=400, help="test scenes of each kind")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    model = yolo9000.load()
    train = features(model, "oracle", given.pictures)
    tests = {split: features(model, split, given.scenes) for split in ("seen", "unseen")}
    curves: dict[tuple[str, str], list[Curve]] = {}
    for seed in range(given.seeds):
        for form in FORMS:
            layer = trained(model.tree, form, *train, given.steps, seed)
            for split, (x, targets) in tests.items():
                steps = pareto(tree_log_prob(layer(x), model.tree, form=form), model.tree)
                curve = operating_curve(steps.nodes.numpy(), steps.log_probs.numpy(), targets.numpy(), model.tree)
                curves.setdefault((split, form), []).append(curve)
    print(f"{len(train[0])} cut-outs to train on, {given.seeds} seeds; {model.tree}")
    for (split, form), some in curves.items():
        areas = [curve.area for curve in some]
        at = {share: statistics.mean(told_at(curve, share) for curve in some) for share in (0.95, 0.9, 0.8)}
        spread = statistics.stdev(areas) if len(areas) > 1 else 0.0
        told = ", ".join(f"{told:.3f} at {share:.0%} correct" for share, told in at.items())
        rows = len(tests[split][0])
        print(f"{split:7} {rows:5} cut-outs  {FORMS[form]:28} area {statistics.mean(areas):.3f} ± {spread:.3f}; {told}")
    if given.picture:
        draw(curves, given.picture)


@torch.no_grad()
def features(model: Detector, split: str, count: int) -> tuple[Tensor, Tensor]:
    """The trunk's features [n, channels] of each object of a split, cut out, and its node [n]."""
    nodes = torch.from_numpy(label_map().nodes_on(model.tree).copy())
    rows, targets = [], []
    pictures = Pictures(split, count, model.size, seed=1 if split == "oracle" else 0)
    for image, target in pictures:
        boxes = target["boxes"].clamp(0, model.size)
        cut = roi_align(image[None].float() / 255, [boxes], SIDE, sampling_ratio=2, aligned=True)
        rows.append(model.trunk(cut).mean((2, 3)))
        targets.append(nodes[target["labels"]])
    return torch.cat(rows), torch.cat(targets)


def trained(tree: WordTree, form: str, x: Tensor, targets: Tensor, steps: int, seed: int) -> nn.Linear:
    """A linear layer on the features, trained by the loss of its form."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    layer = nn.Linear(x.shape[1], len(tree) if form == "conditional" else len(tree.leaves))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(x), (256,), generator=generator)
        optimizer.zero_grad()
        tree_cross_entropy(layer(x[batch]), targets[batch], tree, form=form).backward()
        optimizer.step()
        schedule.step()
    return layer.eval().requires_grad_(False)


def told_at(curve: Curve, correct: float) -> float:
    """The most information that answers tell while this share of them is correct."""
    enough = curve.correct >= correct
    return float(curve.information[enough].max()) if enough.any() else 0.0


def draw(curves: dict[tuple[str, str], list[Curve]], path: Path) -> None:
    """One panel a split, one line a form: the first seed's curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, split in zip(panels, ("seen", "unseen"), strict=True):
        first = {name: curves[split, form][0] for form, name in FORMS.items()}
        draw_told(panel, {name: (curve.information, curve.correct) for name, curve in first.items()})
        panel.set_title({"seen": "drawings seen, in other scenes", "unseen": "a family of drawings never seen"}[split])
    panels[0].set_ylabel("share of answers that are correct")
    panels[0].legend(loc="lower left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
