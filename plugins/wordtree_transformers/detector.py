"""A detector of the DETR family over a tree: transformers' own model finds objects and boxes, the tree names them.

The model's own classifier is left in place, with one class where it starts afresh and with its own where it is
pretrained, and its best class is the objectness. Matching and the losses of boxes and objectness are transformers' own
code, given the problem of one class; what is new is the tree's loss at the matched queries, which reads what the
decoder's last layer gives to the classifier, and the descent at the kept ones.

The seam is `PreTrainedModel.loss_function`: every model hands its logits, boxes, inner layers and denoising queries to
it, by one signature. It is stood in for during a forward pass, so that a model in hand stays as it was.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_convert
from transformers.loss.loss_d_fine import DFineForObjectDetectionLoss
from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss, DeformableDetrHungarianMatcher
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss, HungarianMatcher
from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss, RTDetrHungarianMatcher
from wordtree_torchvision.dense import clipped
from wordtree_torchvision.detector import (
    KNOWN_OBJECTNESS,
    Kept,
    Rows,
    Target,
    TreeDetector,
    best_class,
    exact,
    ignored,
    log_sigmoid,
    pull,
    softened,
)
from wordtree_torchvision.head import TreeHead


class Rule(NamedTuple):
    """How the models that share a loss are read."""

    matcher: Callable[[Any], Any]  # of a config
    background: bool  # a softmax with a last column for no object; else a sigmoid a class
    layers: int  # the dimension of `outputs_class` and `outputs_coord` that counts the decoder's layers


def _costs(config: Any) -> dict[str, float]:
    return {name: getattr(config, name) for name in ("class_cost", "bbox_cost", "giou_cost")}


RULES: dict[Callable[..., Any], Rule] = {
    ForObjectDetectionLoss: Rule(lambda config: HungarianMatcher(**_costs(config)), True, 0),
    DeformableDetrForObjectDetectionLoss: Rule(
        lambda config: DeformableDetrHungarianMatcher(**_costs(config)), False, 0
    ),
    RTDetrForObjectDetectionLoss: Rule(RTDetrHungarianMatcher, False, 1),
    DFineForObjectDetectionLoss: Rule(RTDetrHungarianMatcher, False, 1),
}
CLASSES = {"logits": "pred_boxes", "outputs_class": "outputs_coord", "enc_topk_logits": "enc_topk_bboxes"}
OBJECTNESS = ("loss_ce", "loss_vfl")  # of transformers' losses, those that ask for a class; the others are of boxes

Truths = list[dict[str, Tensor]]


class TreeQueries(TreeDetector):
    """A detector of the DETR family over a tree, on torchvision's contract; see `TreeDetector` for it.

    The losses are "objectness" and "box", transformers' own, for one class, with "tree" and "image_label" beside them.
    `iou` is 1 at first: queries compete for objects as they are trained, and nothing is suppressed.

    Args:
        model: of transformers, with one of the losses of RULES; it is kept as it is, and shared.
        head: the tree's classifier.
        transform: lays images on the input.
    """

    def __init__(self, model: Any, head: TreeHead, transform: GeneralizedRCNNTransform) -> None:
        super().__init__(model, head)
        self.laying = transform
        self.rule_of_loss = RULES[model.loss_function]
        self.classes = model.config.num_labels
        self.one = copy.deepcopy(model.config)  # the problem of one class
        self.one.num_labels = 1
        self.matcher = self.rule_of_loss.matcher(self.one)
        self.masked = "pixel_mask" in inspect.signature(model.forward).parameters and self.rule_of_loss.layers == 0
        self.register_state_dict_post_hook(_untied)

    @property
    def transform(self) -> Any:
        return self.laying

    # ------------------------------------------------------------------ what the model sees

    def look(
        self, images: Sequence[Tensor] | Tensor, targets: list[Target] | None = None
    ) -> tuple[ImageList, dict[str, Tensor], list[Target]]:
        """Lay images on the input and run the model: the batch, its output by name, the targets laid alike."""
        batch, placed = self.lay(images, targets)
        return batch, self.model(**self.inputs(batch)), placed

    def inputs(self, batch: ImageList, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """What the model is called with, of all images or some; pixels beyond an image are masked where it can."""
        rows = range(len(batch.image_sizes)) if rows is None else rows
        pixels = batch.tensors[list(rows)]
        if not self.masked:
            return {"pixel_values": pixels}
        mask = pixels.new_zeros(len(pixels), *pixels.shape[-2:], dtype=torch.int64)
        for at, row in enumerate(rows):
            height, width = batch.image_sizes[row]
            mask[at, :height, :width] = 1
        return {"pixel_values": pixels, "pixel_mask": mask}

    def frames(self, batch: ImageList) -> Tensor:
        """Width, height, width, height that boxes are fractions of: float [b, 4] pixels of the input."""
        whole = [tuple(batch.tensors.shape[-2:])] * len(batch.image_sizes)
        height, width = torch.tensor(
            batch.image_sizes if self.masked else whole, dtype=torch.float32, device=batch.tensors.device
        ).unbind(1)
        return torch.stack((width, height, width, height), dim=1)

    def objectness(self, logits: Tensor) -> Tensor:
        """float [..., columns] -> [...]: the logit of the likeliest class, or of all that is not "no object"."""
        if self.rule_of_loss.background:
            logits = exact(logits)
            return logits[..., :-1].logsumexp(-1) - logits[..., -1]
        return best_class(logits)

    def rows(self, hidden: Tensor, columns: Tensor) -> Tensor:
        """Rows for the tree's classifier. hidden: float [rows, features], columns [rows, columns]."""
        first = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
        return self.head(0, hidden, first, columns)  # type: ignore[no-any-return]

    def keep(self, batch: ImageList, features: dict[str, Tensor], threshold: float) -> Kept:
        logits = features["logits"]
        hidden = features["last_hidden_state"][:, -logits.shape[1] :]  # after what a plain transformer has beside them
        objectness = log_sigmoid(self.objectness(logits)).exp()
        image, at = (objectness > threshold).nonzero(as_tuple=True)
        boxes = box_convert(exact(features["pred_boxes"][image, at]), "cxcywh", "xyxy") * self.frames(batch)[image]
        boxes = clipped(boxes, batch, image)
        return Kept(image, boxes, objectness[image, at], self.rows(hidden[image, at], logits[image, at]))

    # ------------------------------------------------------------------ training

    def learn(self, images: Sequence[Tensor] | Tensor, targets: list[Target], boxed: list[bool]) -> dict[str, Tensor]:
        """The losses. Images with boxes and images with a label alone go through the model apart: what has no boxes
        is nothing that a matcher, or a denoiser of boxes, should see."""
        batch, placed = self.lay(images, targets)
        mine = [at for at, has in enumerate(boxed) if has]
        rest = [at for at, has in enumerate(boxed) if not has]
        zero = batch.tensors.new_zeros(())
        losses = {"objectness": zero, "box": zero}
        first = second = self._none(zero)
        label = zero
        if mine:
            losses, first = self._boxed(batch, placed, mine)
        if rest:
            second, label = self._labelled(batch, placed, rest)
        tree, named = self.tree_losses(first, second, targets)
        return {**losses, "tree": tree, "image_label": named + label}

    def _none(self, like: Tensor) -> Rows:
        nothing = torch.zeros(0, dtype=torch.int64, device=like.device)
        return Rows(like.new_zeros(0, self.head.classes.features), nothing, like.new_zeros(0), nothing)

    def _boxed(self, batch: ImageList, placed: list[Target], mine: list[int]) -> tuple[dict[str, Tensor], Rows]:
        """transformers' own losses of the images with boxes, and their matched queries."""
        frames = self.frames(batch)
        truths: Truths = []
        for at in mine:
            boxes = box_convert(placed[at]["boxes"] / frames[at], "xyxy", "cxcywh")
            truths.append({"boxes": boxes, "class_labels": torch.zeros_like(placed[at]["labels"])})
        # a pretrained denoiser has no word for "an object": it is told the index that it embeds as nothing
        word = 0 if self.classes == 1 else self.classes
        told = [{**truth, "class_labels": torch.full_like(truth["class_labels"], word)} for truth in truths]
        with self._listening() as heard:
            out = self.model(**self.inputs(batch, mine), labels=told)
        (given,) = heard
        given = {name: exact(one) if _floats(one) else one for name, one in given.items()}
        split = (given.get("denoising_meta_values") or {}).get("dn_num_split", (0, given["logits"].shape[1]))
        queries = split[1]
        columns, boxes = given["logits"][:, -queries:], given["pred_boxes"][:, -queries:]
        hidden = out.last_hidden_state[:, -queries:]

        share = self._shares(hidden, columns, [placed[at].get("known") for at in mine])
        if any("ignored" in placed[at] for at in mine):
            share = torch.ones_like(columns[..., 0]) if share is None else share
            share = share.masked_fill(self._ignored(boxes.detach(), frames, placed, mine), 0.0)
        for name, of_boxes in CLASSES.items():
            if given.get(name) is not None:
                found = self.objectness(given[name])
                if share is not None:
                    found = self._pushed_less(found, given[of_boxes], truths, share, self.rule_of_loss.layers)
                given[name] = self._columns(found)
        with torch.autocast(columns.device.type, enabled=False):
            total, parts, _ = self.model.loss_function(**{**given, "labels": truths, "config": self.one})
            pairs = self.matcher({"logits": self._columns(self.objectness(columns)), "pred_boxes": boxes}, truths)
        sure = torch.stack([one for name, one in parts.items() if name.startswith(OBJECTNESS)]).sum()

        image = torch.cat([torch.full_like(one, row) for row, (one, _) in enumerate(pairs)]).to(columns.device)
        query = torch.cat([one for one, _ in pairs]).to(columns.device)
        labels = [placed[at]["labels"][truth.to(columns.device)] for at, (_, truth) in zip(mine, pairs, strict=True)]
        total_boxes = sum(len(truth["boxes"]) for truth in truths)  # transformers' own normaliser
        part = torch.full((len(query),), 1 / max(1, total_boxes), device=columns.device)
        x = self.rows(hidden[image, query], columns[image, query])
        rows = Rows(x, torch.cat(labels), part, torch.tensor(mine, device=columns.device)[image])
        return {"objectness": sure, "box": total - sure}, rows

    def _labelled(self, batch: ImageList, placed: list[Target], rest: list[int]) -> tuple[Rows, Tensor]:
        """Each image label's query, by the rule; and the cost of its being no object."""
        out = self.model(**self.inputs(batch, rest))
        log_objectness = log_sigmoid(self.objectness(out.logits))
        hidden = out.last_hidden_state[:, -out.logits.shape[1] :]
        best = []
        for row, at in enumerate(rest):
            with torch.no_grad():
                x = self.rows(hidden[row], out.logits[row])
                boxes = box_convert(exact(out.pred_boxes[row]), "cxcywh", "xyxy").clamp(0, 1) * self.frames(batch)[at]
            best.append(self.chosen(log_objectness[row], x, placed[at]["labels"].reshape(-1)[:1], boxes))
        rows, query = torch.arange(len(rest), device=out.logits.device), torch.stack(best)
        labels = torch.cat([placed[at]["labels"].reshape(-1)[:1] for at in rest])
        part = torch.full((len(rest),), 1 / len(placed), device=out.logits.device)
        image = torch.tensor(rest, device=out.logits.device)
        x = self.rows(hidden[rows, query], out.logits[rows, query])
        return Rows(x, labels, part, image), pull(log_objectness[rows, query]).sum() / len(placed)

    def _columns(self, objectness: Tensor) -> Tensor:
        """[...] -> the columns that transformers' losses read of one class, [..., 1] or [..., 2]."""
        if self.rule_of_loss.background:
            return torch.stack((objectness, torch.zeros_like(objectness)), dim=-1)
        return objectness[..., None]

    @contextmanager
    def _listening(self) -> Iterator[list[dict[str, Any]]]:
        """While it lasts, the model's loss is not computed: what it would be computed from is kept, by name."""
        heard: list[dict[str, Any]] = []
        own = self.model.loss_function
        signature = inspect.signature(own)

        def hear(*args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor], None]:
            given = dict(signature.bind(*args, **kwargs).arguments)
            heard.append({**given, **given.pop("kwargs", {})})
            return given["logits"].sum() * 0.0, {}, None

        before = self.model.__dict__.get("_loss_function")
        self.model.loss_function = hear
        try:
            yield heard
        finally:
            del self.model._loss_function
            if before is not None:
                self.model.loss_function = before

    @torch.no_grad()
    def _shares(self, hidden: Tensor, columns: Tensor, knowns: Sequence[Tensor | None]) -> Tensor | None:
        """The probability that a query's class is one that its source knows, [b, queries]; None where all know all."""
        if all(known is None or bool(known.all()) for known in knowns):
            return None
        objectness = log_sigmoid(self.objectness(columns)).exp()
        share = torch.ones_like(objectness)
        for row, known in enumerate(knowns):
            if known is not None:
                at = (objectness[row] > KNOWN_OBJECTNESS).nonzero()[:, 0]
                share[row, at] = self.known_share(self.rows(hidden[row, at], columns[row, at]), known).to(share)
        return share

    def _ignored(self, boxes: Tensor, frames: Tensor, placed: list[Target], mine: list[int]) -> Tensor:
        """bool [b, queries]: the queries in an ignored region. boxes: float [b, queries, 4] cxcywh, fractions."""
        corners = box_convert(exact(boxes), "cxcywh", "xyxy") * frames[mine][:, None]
        return torch.stack([ignored(placed[at], corners[row]) for row, at in enumerate(mine)])

    def _pushed_less(self, logits: Tensor, boxes: Tensor, truths: Truths, share: Tensor, layers: int) -> Tensor:
        """Objectness [b, q], or of each layer, softened at the queries that no truth claims; a query is one through
        all layers. Denoising queries, which come first, are what they are made to be."""
        if logits.dim() == 3:
            each = zip(logits.unbind(layers), boxes.unbind(layers), strict=True)
            return torch.stack([self._pushed_less(*one, truths, share, layers) for one in each], layers)
        queries = share.shape[1]
        noise, mine = logits[:, : logits.shape[1] - queries], logits[:, logits.shape[1] - queries :]
        free = torch.ones_like(mine, dtype=torch.bool)
        found = self.matcher({"logits": self._columns(mine), "pred_boxes": boxes[:, -queries:]}, truths)
        for row, (query, _) in enumerate(found):
            free[row, query.to(free.device)] = False
        return torch.cat((noise, torch.where(free & (share < 1), softened(mine, share.to(mine)), mine)), dim=1)


def _floats(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _untied(module: TreeQueries, state: dict[str, Tensor], prefix: str, metadata: Mapping[str, Any]) -> None:
    """Weights that layers share are written once for each of them: safetensors has no word for "the same"."""
    seen: set[int] = set()
    for name, value in state.items():
        if value.data_ptr() in seen and value.numel():
            state[name] = value.clone()
        seen.add(value.data_ptr())
