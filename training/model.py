# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The model in training: KOSMOS-2's own modules, initial weights, losses. Knows no scenes.

It differs from the saved model in three points, which `finish` removes:
- The 1024 location embeddings are sums of 32 row codes and 32 column codes. The softmax over
  locations is then the product of one over rows and one over columns, and every location trains
  its whole row and column.
- Auxiliary heads predict from each image token the shape that covers its cell, the corners of
  that shape, and how many shapes resemble it.
- Several prompts share one image. They follow its tokens one after the other, and an attention
  mask hides them from each other.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

from kosmos_ros.kosmos2.grounding import GRID
from kosmos_ros.shapes.scenes import COLOURS, COUNTS, KINDS
from training.tokenizer import LOCATIONS, vocabulary

WIDTH = 128  # of every hidden state, D below
CELLS = 8  # image tokens along each side; each represents one cell of the image
PATCHES = 10  # of the vision model along each side
IMAGE_SIZE = 120  # pixels along each side
NOTHING = len(KINDS)  # class of a cell without a shape
ANYWHERE = -1  # target of a location token where every location is equally right
SUMMARY = ("mention", "rank", "alike", "of its kind", "of its colour", "in all")
"""Numbers from 0 to 3 about the shape of a cell: the position of its phrase in the brief caption,
its position from left to right, and one less than the number of shapes that are alike, of its
kind, of its colour, and in the scene. The last one is also a target of cells without a shape."""
IGNORED = -100  # target without a loss: the default of torch's cross_entropy

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class DenseTargets:
    """Targets of the auxiliary heads for each image token; IGNORED where there is none."""

    kinds: Tensor  # (B, 64) index into KINDS, or NOTHING
    colours: Tensor  # (B, 64) index into COLOURS
    corners: Tensor  # (B, 64, 4) grid cells of x1, y1, x2, y2
    summary: Tensor  # (B, 64, 6) see SUMMARY


@dataclass(frozen=True)
class Prompts:
    """Prompts with their answers, packed after the image tokens."""

    ids: Tensor  # (B, T)
    positions: Tensor  # (B, T) rows of the position embeddings
    mask: Tensor  # (B, 1, T, T) added to the attention scores
    targets: Tensor  # (B, T) next id or ANYWHERE, IGNORED outside answers


def make_config() -> Kosmos2Config:
    """Return the configuration of `shapes`: no dropout, and the 64 image tokens of KOSMOS-2."""
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": IMAGE_SIZE // PATCHES,
        "attention_dropout": 0.0,
    }
    text = {
        "vocab_size": len(vocabulary()),
        "max_position_embeddings": 1024,
        "embed_dim": WIDTH,
        "layers": 3,
        "ffn_dim": 4 * WIDTH,
        "attention_heads": 4,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    }
    return Kosmos2Config(
        vision_config=vision, text_config=text, latent_query_num=CELLS**2, tie_word_embeddings=True
    )


class Learner(nn.Module):
    """The model in training; `finish` returns the KOSMOS-2 to save."""

    def __init__(self, config: Kosmos2Config) -> None:
        super().__init__()
        self.kosmos = Kosmos2ForConditionalGeneration(config)
        words = torch.randn(len(vocabulary()) - LOCATIONS, WIDTH)
        self.words = nn.Parameter(words / math.sqrt(WIDTH))
        self.rows = nn.Parameter(_smooth_codes() / math.sqrt(2 * WIDTH))
        self.columns = nn.Parameter(_smooth_codes() / math.sqrt(2 * WIDTH))
        self.reader = nn.LayerNorm(WIDTH)
        self.kind_head = nn.Linear(WIDTH, NOTHING + 1)
        self.colour_head = nn.Linear(WIDTH, len(COLOURS))
        self.corner_head = nn.Linear(WIDTH, 4 * WIDTH)
        self.summary_head = nn.Linear(WIDTH, len(SUMMARY) * max(COUNTS))
        _initialise(self.kosmos)
        self.kosmos.text_model.lm_head.weight.requires_grad_(False)  # shared with the embeddings

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the image tokens (B, 64, D) of pixels (B, S, S, 3) uint8."""
        mean, std = (torch.tensor(v, device=pixels.device) for v in (MEAN, STD))
        values = ((pixels / 255.0 - mean) / std).permute(0, 3, 1, 2)
        vision = self.kosmos.vision_model
        features = vision.model.post_layernorm(vision(values).last_hidden_state)
        features = functional.normalize(features, dim=-1)
        tokens: Tensor = self.kosmos.image_to_text_projection(features)[0]
        return tokens

    def dense_loss(self, tokens: Tensor, targets: DenseTargets, blur: float) -> dict[str, Tensor]:
        """Return cross-entropies (nats) of kind, colour, the four corners and the summary."""
        read = self.reader(tokens)
        kinds = self.kind_head(read).transpose(1, 2)  # (B, classes, 64)
        colours = self.colour_head(read).transpose(1, 2)
        asked = targets.colours != IGNORED
        pointers = self.corner_head(read[asked]).unflatten(-1, (4, WIDTH))  # (N, 4, D)
        codes = torch.stack([self.columns, self.rows, self.columns, self.rows])  # x1, y1, x2, y2
        corners = torch.einsum("nsd,scd->nsc", pointers, codes).flatten(0, 1)
        summary = self.summary_head(read).unflatten(-1, (len(SUMMARY), max(COUNTS)))
        summary_losses = [
            functional.cross_entropy(logits.flatten(0, 1), expected.flatten())
            for logits, expected in zip(summary.unbind(2), targets.summary.unbind(2), strict=True)
        ]
        return {
            "kind": functional.cross_entropy(kinds, targets.kinds),
            "colour": functional.cross_entropy(colours, targets.colours),
            "summary": torch.stack(summary_losses).mean(),
            "corner": _blurred_loss(corners, targets.corners[asked].flatten(), blur),
        }

    def language_loss(self, tokens: Tensor, prompts: Prompts, blur: float) -> dict[str, Tensor]:
        """Return cross-entropies (nats) of the answers' words and of locations' rows and columns.

        All locations count as one word. For the log only, also return the share of right words
        and the mean error of locations in grid cells.
        """
        decoder = self.kosmos.text_model.model
        embedded = functional.embedding(prompts.ids, self._embeddings())
        first = 2  # after <s> and <image>
        embedded = torch.cat(
            [embedded[:, :first], tokens, embedded[:, first + tokens.shape[1] :]], dim=1
        )
        hidden = embedded * decoder.embed_scale
        hidden = hidden + decoder.embed_positions.weights[prompts.positions]
        for layer in decoder.layers:
            hidden = _hidden_states(layer(hidden, prompts.mask))
        asked = prompts.targets != IGNORED
        hidden, targets = decoder.layer_norm(hidden[asked]), prompts.targets[asked]
        by_row, by_column = hidden @ self.rows.T, hidden @ self.columns.T
        # The word "a location" has the sum of all locations' probabilities.
        location = torch.logsumexp(by_row, -1) + torch.logsumexp(by_column, -1)
        words = torch.cat([hidden @ self.words.T, location[:, None]], dim=1)
        first_location = len(self.words)
        known, located = targets != ANYWHERE, targets >= first_location
        words, expected = words[known], targets[known].clamp(max=first_location)
        where = targets[located] - first_location
        right = words.argmax(-1) == expected
        anywhere = targets[~known]
        rows = torch.cat([by_row[located], by_row[~known]])
        columns = torch.cat([by_column[located], by_column[~known]])
        return {
            "word": functional.cross_entropy(words, expected),
            "row": _blurred_loss(rows, torch.cat([where // GRID, anywhere]), blur),
            "column": _blurred_loss(columns, torch.cat([where % GRID, anywhere]), blur),
            "word right": right.float().mean().detach(),
            "cells off": _cells_off(by_row[located], by_column[located], where).detach(),
        }

    def finish(self) -> Kosmos2ForConditionalGeneration:
        """Return the plain KOSMOS-2 with its embeddings filled in."""
        with torch.no_grad():
            self.kosmos.text_model.lm_head.weight.copy_(self._embeddings())
        return self.kosmos

    def _embeddings(self) -> Tensor:
        locations = (self.rows[:, None] + self.columns[None, :]).flatten(0, 1)
        return torch.cat([self.words, locations])


def _blurred_loss(logits: Tensor, targets: Tensor, blur: float) -> Tensor:
    """Return the cross-entropy of logits (N, 32) and Gaussians of `blur` cells at targets (N,).

    A target ANYWHERE is the uniform distribution.
    """
    cells = torch.arange(GRID, device=logits.device)
    distance = (cells[None, :] - targets[:, None]) / max(blur, 1e-3)
    distance[targets == ANYWHERE] = 0.0
    return functional.cross_entropy(logits, torch.softmax(-0.5 * distance.square(), dim=-1))


def _cells_off(by_row: Tensor, by_column: Tensor, where: Tensor) -> Tensor:
    """Return the mean error of the likeliest location along one axis, in grid cells."""
    down = (by_row.argmax(-1) - where // GRID).abs().float().mean()
    return (down + (by_column.argmax(-1) - where % GRID).abs().float().mean()) / 2.0


def _smooth_codes() -> Tensor:
    """Return random codes (32, D) of variance 1 whose neighbours are similar."""
    cells = torch.arange(float(GRID))
    similar = torch.exp(-0.5 * ((cells[:, None] - cells[None, :]) / 1.5).square())
    root: Tensor = torch.linalg.cholesky(similar + 1e-4 * torch.eye(GRID))
    return root @ torch.randn(GRID, WIDTH)


def _position_codes(*sides: int) -> list[Tensor]:
    """Return codes (side**2, D) of variance 1 for the parts of an image cut into side x side.

    The codes are sines of x and y, multiplied by one random matrix. A position has the same
    code for every side.
    """
    frequencies = torch.logspace(math.log10(math.pi / 16), math.log10(math.pi * 0.9), WIDTH // 4)
    mixed = nn.init.orthogonal_(torch.empty(WIDTH, WIDTH)) * math.sqrt(2.0)
    codes = []
    for side in sides:
        centres = (torch.arange(float(side)) + 0.5) * CELLS / side
        angles = centres[:, None] * frequencies
        waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)  # (side, D / 2)
        down = waves[:, None].expand(side, side, -1)
        across = waves[None, :].expand(side, side, -1)
        codes.append(torch.cat([down, across], dim=-1).flatten(0, 1) @ mixed)
    return codes


@torch.no_grad()
def _initialise(kosmos: Kosmos2ForConditionalGeneration) -> None:
    """Scale weights so that activations are near 1; make query j attend to its cell's patches."""
    layers = [*kosmos.vision_model.model.encoder.layers, *kosmos.text_model.model.layers]
    for layer in layers:
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                last = name.endswith(("out_proj", "fc2"))
                scale = 1.0 / math.sqrt(len(layers)) if last else 1.0
                nn.init.normal_(module.weight, std=scale / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
    patches, cells = _position_codes(PATCHES, CELLS)
    embeddings = kosmos.vision_model.model.embeddings
    nn.init.normal_(embeddings.patch_embedding.weight, std=0.04)
    embeddings.position_embedding.weight[1:] = 0.7 * patches
    projection = kosmos.image_to_text_projection
    # Features have length 1; scale them to variance 1.
    projection.dense.weight.copy_(math.sqrt(WIDTH) * torch.eye(WIDTH))
    nn.init.zeros_(projection.dense.bias)
    projection.latent_query.copy_(cells)
    for linear in (projection.x_attn.q_proj, projection.x_attn.k_proj):
        linear.weight.copy_(1.4 * torch.eye(WIDTH))
        nn.init.zeros_(linear.bias)
    nn.init.normal_(projection.x_attn.v_proj.weight, std=1.0 / math.sqrt(WIDTH))
    # The text model multiplies image tokens by sqrt(D), as it does words.
    nn.init.normal_(projection.x_attn.out_proj.weight, std=1.0 / WIDTH)


def _hidden_states(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the hidden states (B, T, D) that a layer of the text model computes.

    Before transformers 5 they are the first of a tuple.
    """
    return output[0] if isinstance(output, tuple) else output
