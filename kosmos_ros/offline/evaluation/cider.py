# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Score captions with CIDEr, by the package pycocoevalcap, which the paper of KOSMOS-2 uses.

The package is optional, and its tokenizer is a program of Java. Knows no data set and no model.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping, Sequence

from kosmos_ros.errors import ConfigError

PACKAGE = "pycocoevalcap"  # https://github.com/salaniz/pycocoevalcap


def missing() -> str:
    """Return what is missing for CIDEr and the command that installs it; empty: nothing."""
    if importlib.util.find_spec(PACKAGE) is None:
        install = f"{sys.executable} -m pip install {PACKAGE}"
        return f"the package {PACKAGE} is not installed; run '{install}'"
    if not shutil.which("java"):
        return f"the tokenizer of {PACKAGE} needs Java; install a package such as default-jre"
    return ""


def scores(captions: Sequence[str], truths: Sequence[Sequence[str]]) -> list[float]:
    """Return the CIDEr score, 0 to 10, of the caption of each image.

    `truths[i]` are the true captions of image i. The mean of the scores is the CIDEr of all
    images; papers give it times 100. A word counts more if fewer images have it, so each
    score depends on all images. Raises ConfigError if the tokenizer fails.
    """
    from pycocoevalcap.cider.cider import Cider

    references = _tokenized(dict(enumerate(truths)))
    # The tokenizer would lose an empty caption.
    said = {key: [caption] for key, caption in enumerate(captions) if caption.strip()}
    candidates = {key: [""] for key in range(len(captions))}
    if said:
        candidates |= _tokenized(said)
    _, each = Cider().compute_score(references, candidates)
    return [float(score) for score in each]


def _tokenized(texts: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = {
        key: [{"caption": " ".join(text.split())} for text in own] for key, own in texts.items()
    }
    try:
        found: dict[int, list[str]] = PTBTokenizer().tokenize(lines)
    except OSError as exc:  # it writes a file into its own folder
        raise ConfigError(f"CIDEr cannot be computed: the tokenizer failed: {exc}") from exc
    if _counts(found) != _counts(texts):
        raise ConfigError(
            "CIDEr cannot be computed: the tokenizer did not return all captions; "
            "check that 'java -version' works"
        )
    return found


def _counts(texts: Mapping[int, Sequence[str]]) -> dict[int, int]:
    return {key: len(own) for key, own in texts.items()}
