# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""`shapes`: a tiny KOSMOS-2 that captions drawn scenes of coloured shapes.

    scenes      what is in a picture and where: sampling, motion, truth; knows no pixels
    rendering   scene -> RGB pixels at any resolution
    relations   which shape lies beside which, where that is beyond doubt
    language    scene -> prompts and answers in KOSMOS-2's prompt language
    tokenizer   the vocabulary and its files
    data        scenes -> batches
    model       config, first weights, and the forward pass that training uses
    muon        the optimiser of the layers' matrices
    training    scenes in, weights out
    evaluation  weights in, figures out
    gallery     figures in, pictures of them out

Importing this package imports none of them, so neither torch nor transformers.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "weights"
"""Folder that `from_pretrained` loads: config, tokenizer, preprocessor, weights, model card."""
