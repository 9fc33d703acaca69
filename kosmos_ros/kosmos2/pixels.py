# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Resize and normalise images as the model's own image processor does, but on its device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kosmos_ros.kosmos2.cuda_graphs import upload
from kosmos_ros.kosmos2.loading import RESAMPLING

MAX_CUDA_SCALE = 24
"""Longest side of an image that the GPU resizes, as a multiple of the model's input size."""


class Pixels:
    """The steps of an image processor of Hugging Face, for a model's square of `size` pixels.

    The whole image is stretched to the square and not cropped.
    """

    def __init__(
        self, processor: Any, size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._size, self._device, self._dtype = size, device, dtype
        self._resample = RESAMPLING[int(processor.resample)]
        colours = (processor.image_mean, processor.image_std)
        mean, std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (colours if processor.do_normalize else ([0.0] * 3, [1.0] * 3))
        )
        # (value * rescale - mean) / std as one multiplication and one addition
        self._scale = (float(processor.rescale_factor) if processor.do_rescale else 1.0) / std
        self._offset = -mean / std

    def __call__(self, image: np.ndarray) -> Tensor:
        """Return the model's input (1, 3, S, S), normalised, for an image (H, W, 3) uint8 RGB."""
        # torch warns about a view of a read-only array.
        frame = (torch.from_numpy if image.flags.writeable else torch.tensor)(image)
        # torch's CUDA kernel keeps the whole filter in the 48 KiB of shared memory of a block.
        large = max(image.shape) > MAX_CUDA_SCALE * self._size
        if self._device.type == "cuda" and not large:
            frame = upload(frame, self._device).float()  # only the CPU resizes bytes
        square = self.resized(frame).to(self._device).float()
        return (square * self._scale + self._offset).to(self._dtype)

    def resized(self, frame: Tensor) -> Tensor:
        """Return the square (1, 3, S, S) of an image (H, W, 3), in levels from 0 to 255.

        The image is uint8, or float32 with whole levels; the square has the same type.
        """
        levels = frame.permute(2, 0, 1)[None]
        if not levels.is_floating_point():
            return self._stretched(levels, self._size)
        # Resizing of bytes changes the width first, and then has bytes again.
        for height in (levels.shape[2], self._size):
            levels = self._stretched(levels, height).round().clamp(0, 255)
        return levels

    def _stretched(self, levels: Tensor, height: int) -> Tensor:
        antialias = {} if self._resample == "nearest-exact" else {"antialias": True}
        size = (height, self._size)
        return functional.interpolate(levels, size, mode=self._resample, **antialias)
