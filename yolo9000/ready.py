"""What a step makes of a batch before the network sees it; what is random in it comes from the seed and its number."""

import torch
from torch import Tensor, nn

from .data.augment import recoloured


def ready_batch(
    images: Tensor,
    targets: list[dict[str, Tensor]],
    step: int,
    size: int,
    seed: int,
    device: torch.device,
    part: int = 0,
    parts: int = 1,
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """A batch, or one of the equal parts that it is computed in, as the network takes it in a step: mirrored, resized
    and recoloured; what is random in the step is drawn from the seed and its number.

    Args:
        images: uint8 [b, 3, h, w].
        targets: one an image, boxes in its pixels.
        step: the number of the step, from 0.
        size: pixels of the input.
        part, parts: the pictures are those at `part`, `part + parts`, ... of the whole batch.
    """
    torch.manual_seed(seed * 1_000_003 + step + part * 500_009)  # of layers that draw, as a plug-in's may
    images, targets = mirrored(images, targets, seed * 1_000_003 + step, part, parts)
    batch = images.to(device).float() / 255
    scale = size / batch.shape[-1]
    if scale != 1:
        batch = nn.functional.interpolate(batch, (size, size), mode="bilinear", antialias=scale < 1)
    ready = [{key: value.to(device) for key, value in target.items()} for target in targets]
    changes = [target.pop("colours") for target in ready if "colours" in target]
    if changes:
        batch = recoloured(batch, torch.stack(changes))
    batch = batch.contiguous(memory_format=torch.channels_last)
    for target in ready:
        target |= {key: target[key] * scale for key in ("boxes", "ignored") if key in target}
    return batch, ready


def mirrored(
    images: Tensor, targets: list[dict[str, Tensor]], seed: int, part: int = 0, parts: int = 1
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Half of the pictures left to right, chosen by the seed and their places in the whole batch; boxes with them.

    images: [b, 3, h, w], boxes in pixels; part, parts: as `ready_batch`.
    """
    chance = torch.rand(len(images) * parts, generator=torch.Generator().manual_seed(seed))
    flip = chance[part::parts] < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    width = images.shape[3]
    ready = []
    for target, flipped in zip(targets, flip.tolist(), strict=True):
        for key in ("boxes", "ignored") if flipped else ():
            if key in target:
                left, top, right, bottom = target[key].unbind(1)
                target = {**target, key: torch.stack((width - right, top, width - left, bottom), dim=1)}
        ready.append(target)
    return images, ready
