# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""The kernels equal a plain step in Triton's interpreter, and compile for other GPUs."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from kosmos_ros.kosmos2 import kernels

TEST = Path(__file__).parents[1]
triton = pytest.mark.skipif(
    not kernels.importable(), reason="triton 3.5 or newer is not installed: run scripts/setup"
)


def run(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=TEST,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@triton
@pytest.mark.slow
@pytest.mark.parametrize("tests", ["interpreted_kernels.py", "interpreted_decoder.py"])
def test_a_step_of_the_kernels_equals_a_plain_step(tests):
    # The whole process must use the interpreter, so these tests have their own.
    flags = ("-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning")
    print(run("-m", "pytest", *flags, f"kosmos2/{tests}", TRITON_INTERPRET="1"))


@triton
@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", "nf4"])
def test_the_kernels_of_few_rows_are_compiled_once_and_fit_in_the_smallest_gpu(tmp_path, form):
    gpu = ("--capability", "86", "--dtype", "bfloat16", "--format", form)
    flags = (*gpu, "--rows", "2", "3", "8", "16")
    lines = run("compiled_kernels.py", *flags, TRITON_CACHE_DIR=str(tmp_path)).splitlines()
    names = [line.split()[3] for line in lines if line.startswith("86 bfloat16")]
    # Each once: another number of rows compiles nothing again. The products are qkv of the first
    # block and of others, out, up, and down of the last block and of others.
    # The norms of many rows are those of the text model (3) and of the vision tower (3).
    once = ["attend:", "before_head:", "choose:", "embed:", "head_few_rows:"]
    assert sorted(names) == sorted([*once, *["block_few_rows:"] * 6, *["norm_row:"] * 6])


def test_a_cpu_and_full_precision_are_left_to_torch():
    assert not kernels.available(torch.device("cpu"), torch.bfloat16)
    assert not kernels.available(torch.device("cuda:0"), torch.float32)
    assert kernels.fast_norms(torch.ones(1, dtype=torch.bfloat16)) is None


@pytest.mark.parametrize(
    ("capability", "hip", "expected"),
    [((7, 5), None, False), ((8, 0), None, True), ((9, 0), None, True), ((9, 4), "6.4", False)],
)
@triton
def test_gpus_from_capability_8_have_the_kernels(monkeypatch, capability, hip, expected):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for dtype in (torch.bfloat16, torch.float16):
        assert kernels.available(torch.device("cuda:0"), dtype) == expected


@pytest.fixture
def gpu(monkeypatch):
    """Weights on a GPU that this machine does not have."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    for name in ("zeros", "nn.LayerNorm"):
        monkeypatch.setattr(f"torch.{name}", lambda *_, **__: None)
    kernels._norms.cache_clear()
    yield types.SimpleNamespace(is_cuda=True, device=torch.device("cuda:0"), dtype=torch.bfloat16)
    kernels._norms.cache_clear()


@triton
def test_a_gpu_whose_driver_triton_cannot_use_is_left_to_torch(gpu, monkeypatch, caplog):
    from kosmos_ros.kosmos2.kernels import norms, step

    ran = []

    def run(*arguments):
        ran.append(arguments)
        raise AssertionError("libcuda.so cannot found!")

    monkeypatch.setattr(norms, "run", run)
    monkeypatch.setattr(step, "supports", lambda text: True)
    assert kernels.fast_norms(gpu) is None
    assert kernels.make(types.SimpleNamespace(head=gpu), step.Rules()) is None
    assert len(ran) == 1
    (record,) = caplog.records
    assert record.message.startswith("a Triton kernel failed; continuing with torch's kernels")
    assert record.message.endswith("libcuda.so cannot found!")


@triton
def test_a_gpu_has_the_norms_for_weights_of_16_bits(gpu, monkeypatch):
    from kosmos_ros.kosmos2.kernels import norms

    monkeypatch.setattr(norms, "run", lambda *_: None)
    assert kernels.fast_norms(gpu) is norms
    gpu.dtype = torch.float32
    assert kernels.fast_norms(gpu) is None


@pytest.mark.parametrize("found", [None, types.SimpleNamespace(__version__="3.4.0")])
def test_without_a_new_triton_every_gpu_is_left_to_torch(monkeypatch, found):
    monkeypatch.setitem(sys.modules, "triton", found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert not kernels.available(torch.device("cuda:0"), torch.bfloat16)
