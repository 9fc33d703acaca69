# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation of `shapes`, the embedded model. Not installed.

relations   which shapes are left of, right of, above or below a shape
language    scene -> training examples in KOSMOS-2's prompt language
tokenizer   the vocabulary and its files
data        scenes -> batches
model       configuration, initial weights and losses
muon        the optimiser of the layers' matrices
train       scenes -> weights
evaluation  weights -> metrics
results     results of the scenes -> metrics
gallery     results -> example frames and a chart
"""
