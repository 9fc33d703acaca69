# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Compute image tokens with KOSMOS-2's vision tower and its projection to the text model.

Runs on the modules that Hugging Face loaded. Knows tensors only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kosmos_ros.kosmos2 import kernels
from kosmos_ros.kosmos2.blocks import Block, norm
from kosmos_ros.kosmos2.products import linear


class Vision:
    """The vision tower and projection of a Kosmos2ForConditionalGeneration."""

    def __init__(self, model: Any) -> None:
        tower, projection = model.vision_model.model, model.image_to_text_projection
        self._embed = tower.embeddings
        self._before = norm(tower.pre_layrnorm)
        fast = kernels.fast_norms(tower.post_layernorm.weight)
        self._blocks = [Block.vision(layer, fast) for layer in tower.encoder.layers]
        self._after = norm(tower.post_layernorm)
        self._dense = linear(projection.dense)
        self._queries = projection.latent_query
        self._attention = projection.x_attn
        # transformers 4 assumes a causal module without this attribute (sdpa_attention.py).
        self._attention.is_causal = False

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return image tokens (N, Q, H) of pixels (N, 3, S, S)."""
        hidden = self._before(self._embed(pixels))
        for block in self._blocks:
            hidden = block(hidden)
        features = self._dense(functional.normalize(self._after(hidden), dim=-1))
        queries = self._queries.expand(len(pixels), -1, -1)
        states = torch.cat([features, queries], dim=1)
        tokens: Tensor = self._attention(queries, encoder_hidden_states=states)[0]
        return tokens
