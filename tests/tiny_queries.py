"""transformers' detectors of the DETR family, each of the smallest size, for 64-pixel images."""

from __future__ import annotations

from typing import Any

import torch
from wordtree_transformers import build
from wordtree_transformers.zoo import CONFIGS

from wordtree import WordTree

KINDS = tuple(dict.fromkeys(kind for kind, _ in CONFIGS.values()))  # detr, conditional_detr, ...
NAMES = {kind: next(name for name, (one, _) in CONFIGS.items() if one == kind) for kind in KINDS}

TRUNK = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
DEEP = {"model_type": "resnet", **TRUNK, "out_features": ["stage4"]}
LEVELS = {**DEEP, "out_features": ["stage2", "stage3", "stage4"]}
HGNET = {
    "model_type": "hgnet_v2", "stem_channels": [3, 8, 8], "stage_in_channels": [8, 16, 16, 16],
    "stage_mid_channels": [8, 8, 8, 8], "stage_out_channels": [16, 16, 16, 32], "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [1, 1, 1, 1], "hidden_sizes": [16, 16, 16, 32], "depths": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}  # fmt: skip
WIDTHS = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 12,
}  # fmt: skip
HYBRID = {
    "encoder_hidden_dim": 32, "encoder_in_channels": [16, 16, 32], "decoder_in_channels": [32, 32, 32],
    "num_denoising": 4, "hidden_expansion": 0.5, **WIDTHS,
}  # fmt: skip
RT = {**HYBRID, "backbone_config": {**LEVELS, "model_type": "rt_detr_resnet"}}
OPTIONS: dict[str, dict[str, Any]] = {
    "detr": {**WIDTHS, "backbone_config": DEEP},
    "conditional_detr": {**WIDTHS, "backbone_config": DEEP},
    "dab-detr": {
        **{("hidden_size" if key == "d_model" else key): value for key, value in WIDTHS.items()},
        "backbone_config": DEEP,
    },
    "deformable_detr": {**WIDTHS, "backbone_config": LEVELS, "num_feature_levels": 3},
    "rt_detr": RT,
    "rt_detr_v2": RT,
    "d_fine": {**HYBRID, "backbone_config": HGNET},
    "yolos": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "image_size": [64, 64], "num_detection_tokens": 12,
    },
}  # fmt: skip


def tiny(kind: str, tree: WordTree, seed: int = 0, **options: Any) -> Any:
    """A detector of one kind over a tree, from random weights."""
    torch.manual_seed(seed)
    return build(NAMES[kind], tree, size=64, **{**OPTIONS[kind], **options})
