# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""`shapes`: a tiny KOSMOS-2 that captions drawn scenes of coloured shapes.

    scenes      shapes of a scene and their boxes: sampling, motion, truth; knows no pixels
    rendering   scene -> RGB pixels at any resolution
    weights/    the model's files and its model card

The folder training/ of the repository makes the weights. Importing this package imports none of
its modules, neither torch nor transformers.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "weights"
"""Folder for `from_pretrained`: config, tokenizer, preprocessor, weights and model card."""
