"""What the hierarchy in torch costs beside a flat softmax over as many classes, on the same logits.

    python benchmarks/hierarchy.py                      # on YOLO9000's own tree of 9418 nodes
    python benchmarks/hierarchy.py --tree other.json    # on another
    python benchmarks/hierarchy.py --device cuda
    python benchmarks/hierarchy.py --only loss head     # loss, softmax, prob, descent, head, peers

Each pair runs in turns in one process, so that a busy machine is busy for both; a ratio is the median over the turns.
All is float32; a loss is forward and backward; channels-first logits are [nodes, rows], as a convolution's output has
them. Memory is what the allocator was asked for above the inputs, at its peak.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import yolo9000
from wordtree import WordTree, build_tree, wordnet
from wordtree.nn import TreeLinear, descend, tree_cross_entropy, tree_log_prob, tree_log_softmax

ROWS = (256, 1024, 4096)
FEATURES = 1024
Step = Callable[[], object]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", help="a tree file; YOLO9000's own where left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=["loss", "softmax", "prob", "descent", "head", "peers"])
    given = parser.parse_args()
    device = torch.device(given.device)
    tree = WordTree.load(given.tree) if given.tree else yolo9000.official_tree()
    load = os.getloadavg()[0]
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {device}{threads}, load average {load:.2f}, {tree}, {given.rounds} turns")
    for part in given.only:
        PARTS[part](tree, device, given.rounds)


def loss(tree: WordTree, device: torch.device, rounds: int) -> None:
    """Path cross-entropy beside flat cross-entropy, forward and backward, and the memory of each."""
    for rows in ROWS:
        logits, targets = drawn(tree, rows, device)
        logits.requires_grad_()

        def flat(logits: Tensor = logits, targets: Tensor = targets) -> Tensor:
            return torch.autograd.grad(functional.cross_entropy(logits, targets), logits)[0]

        def path(logits: Tensor = logits, targets: Tensor = targets) -> Tensor:
            return torch.autograd.grad(tree_cross_entropy(logits, targets, tree), logits)[0]

        told("loss, forward and backward", rows, compare(path, flat, device, rounds))
        ours, other = memory(path) / bytes_of(logits), memory(flat) / bytes_of(logits)
        print(f"    peak memory, as a multiple of the gradient: tree {ours:.2f}, flat {other:.2f}")


def softmax(tree: WordTree, device: torch.device, rounds: int) -> None:
    """Grouped log-softmax of channels-first logits beside a flat one."""
    channels_first("log-softmax", tree_log_softmax, tree, device, rounds)


def prob(tree: WordTree, device: torch.device, rounds: int) -> None:
    """Log-probabilities of all nodes, channels-first, beside a flat log-softmax."""
    channels_first("log-probabilities of all nodes", tree_log_prob, tree, device, rounds)


def channels_first(
    what: str, function: Callable[..., Tensor], tree: WordTree, device: torch.device, rounds: int
) -> None:
    """Beside a flat log-softmax of the same tensor, and of its transpose, which is a flat softmax's own best layout."""
    for rows in ROWS:
        wide = drawn(tree, rows, device)[0]
        logits = wide.T.contiguous()
        ours = partial(function, logits, tree, dim=0)
        told(f"{what}, beside a flat log-softmax", rows, compare(ours, partial(logits.log_softmax, 0), device, rounds))
        told("    beside one along rows", rows, compare(ours, partial(wide.log_softmax, -1), device, rounds))


def descent(tree: WordTree, device: torch.device, rounds: int) -> None:
    """Thresholded descent beside flat softmax and argmax."""
    for rows in ROWS:
        logits = drawn(tree, rows, device)[0]
        ratio = compare(
            lambda logits=logits: descend(logits, tree, 0.3),  # type: ignore[misc]
            lambda logits=logits: logits.softmax(-1).max(-1),  # type: ignore[misc]
            device,
            rounds,
        )
        told("descent at .3, beside softmax and argmax", rows, ratio)


def head(tree: WordTree, device: torch.device, rounds: int) -> None:
    """TreeLinear's loss on all nouns beside its own at 1369 nodes and beside a dense layer on all nouns."""
    nouns = build_tree(wordnet.all_ids(), root="entity", instances=True)
    small = build_tree("imagenet1k")
    dense = torch.nn.Linear(FEATURES, len(nouns)).to(device)
    lean = {one: TreeLinear(FEATURES, one, sparse=True).to(device) for one in (nouns, small)}
    for rows in (64, 256):
        x = torch.randn(rows, FEATURES, device=device, requires_grad=True)
        targets = {one: torch.randint(len(one), (rows,), device=device) for one in (nouns, small)}

        def of(one: WordTree, x: Tensor = x, targets: dict[WordTree, Tensor] = targets) -> object:
            return gradients(lean[one].loss(x, targets[one]), x, lean[one])

        def flat(x: Tensor = x, targets: dict[WordTree, Tensor] = targets) -> object:
            return gradients(functional.cross_entropy(dense(x), targets[nouns]), x, dense)

        what = f"TreeLinear's loss at {len(nouns)} nodes"
        told(f"{what}, beside {len(small)}", rows, compare(partial(of, nouns), partial(of, small), device, rounds))
        told(f"{what}, beside a dense layer", rows, compare(partial(of, nouns), flat, device, 3))


def peers(tree: WordTree, device: torch.device, rounds: int) -> None:
    """The usual loop over groups, and hierarchicalsoftmax where it is installed, beside the path loss."""
    logits, targets = drawn(tree, 256, device)
    logits.requires_grad_()

    def path() -> Tensor:
        return torch.autograd.grad(tree_cross_entropy(logits, targets, tree), logits)[0]

    marks = torch.from_numpy(tree.propagate(targets.cpu().numpy())).to(device)
    sizes = tree.group_size.tolist()

    def loop() -> Tensor:
        total = logits.new_zeros(())
        for part, mark in zip(logits.split(sizes, 1), marks.split(sizes, 1), strict=True):
            total = total - (part.log_softmax(1) * mark).sum()
        return torch.autograd.grad(total / len(logits), logits)[0]

    assert torch.allclose(path(), loop(), atol=1e-6)
    told("a loop over groups, beside the path loss", 256, compare(loop, path, device, 3))
    try:
        from hierarchicalsoftmax import HierarchicalSoftmaxLoss, SoftmaxNode
    except ImportError:
        print("hierarchicalsoftmax: not installed (pip install hierarchicalsoftmax)")
        return
    top = SoftmaxNode("root")
    nodes = []
    for node in range(len(tree)):
        above = int(tree.parents[node])
        nodes.append(SoftmaxNode(str(node), parent=top if above < 0 else nodes[above]))
    top.set_indexes()
    criterion = HierarchicalSoftmaxLoss(root=top)
    theirs = torch.randn(256, top.layer_size, requires_grad=True)
    ids = torch.tensor([top.node_to_id[nodes[node]] for node in targets.tolist()])
    told(
        "hierarchicalsoftmax, beside the path loss",
        256,
        compare(lambda: torch.autograd.grad(criterion(theirs, ids), theirs)[0], path, device, 3),
    )


PARTS: dict[str, Callable[[WordTree, torch.device, int], None]] = {
    "loss": loss,
    "softmax": softmax,
    "prob": prob,
    "descent": descent,
    "head": head,
    "peers": peers,
}


# ---------------------------------------------------------------------- measuring


def drawn(tree: WordTree, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random logits [rows, nodes], and targets: three quarters leaves, one quarter any node."""
    random = np.random.RandomState(0)
    targets = np.where(random.rand(rows) < 0.75, random.choice(tree.leaves, rows), random.randint(len(tree), size=rows))
    return torch.randn(rows, len(tree), generator=torch.Generator().manual_seed(0)).to(device), torch.from_numpy(
        targets
    ).to(device)


def gradients(value: Tensor, x: Tensor, layer: torch.nn.Module) -> object:
    return torch.autograd.grad(value, [x, *layer.parameters()])


def compare(ours: Step, other: Step, device: torch.device, rounds: int) -> tuple[float, float, float]:
    """Median ratio of ours to the other, and both medians in milliseconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for which, step in enumerate((ours, other)):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[which].append(1e3 * (time.perf_counter() - start))
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    return ratio, statistics.median(times[0]), statistics.median(times[1])


def told(what: str, rows: int, measured: tuple[float, float, float]) -> None:
    ratio, ours, other = measured
    print(f"{what:58} {rows:5} rows  ratio {ratio:8.3f}   ({ours:.2f} ms, {other:.2f} ms)", flush=True)


def memory(step: Step) -> int:
    """The most bytes that a step holds at once, by the profiler's count of what the allocator gave and took back."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    held = most = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


if __name__ == "__main__":
    main()
