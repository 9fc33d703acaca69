# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""A graph is recorded once for each shape and reads the arguments of each call."""

import contextlib

import pytest
import torch
from hypothesis import given as for_any
from hypothesis import strategies as st
from tape import Recorder

from kosmos_ros.kosmos2.cuda_graphs import RUN_SIZES, Cuda, Graphs, any_shape, upload


class Counter:
    """Adds its arguments to a total whose address stays the same."""

    def __init__(self):
        self.total = torch.zeros(1)
        self.calls = 0

    def add(self, factor, values):
        self.calls += 1
        self.total += factor * values.sum()
        return [self.total * 1, values * factor]


def test_each_shape_is_recorded_once_and_replays_read_their_arguments():
    recorder, counter = Recorder(), Counter()
    graphs, arguments, outputs = Graphs(recorder), [], []
    for number in range(5):
        arguments.append(torch.full((2,), float(number)))
        outputs.append(graphs(counter.add, 10, arguments[-1]))
        arguments[-1].fill_(-1.0)
    # Later calls change neither earlier outputs nor the caller's arguments.
    assert [float(total) for total, _ in outputs] == [0, 20, 60, 120, 200]
    assert [scaled.tolist() for _, scaled in outputs] == [[10.0 * n] * 2 for n in range(5)]
    assert [values.tolist() for values in arguments] == [[-1.0, -1.0]] * 5
    assert counter.calls == 2  # one call to run, one to record
    assert [tape.replays for tape in recorder.tapes] == [4]

    graphs(counter.add, 10, torch.ones(3))
    graphs(counter.add, 1, torch.ones(3))
    graphs(counter.add, 10, torch.ones(3))
    assert float(counter.total) == 200 + 30 + 3 + 30
    assert [tape.replays for tape in recorder.tapes] == [4, 1, 0]


def test_graphs_share_a_pool_of_memory_until_all_are_cleared():
    recorder, counter = Recorder(), Counter()
    graphs = Graphs(recorder)
    for size in (1, 2, 1):
        graphs(counter.add, 1, torch.ones(size))
    graphs.clear()
    counter.total = torch.zeros(1)  # at another address, which an old graph would not read
    for size in (1, 1, 2):
        graphs(counter.add, 1, torch.ones(size))
    assert float(counter.total) == 4
    assert recorder.fresh == [True, False, True, False]


def test_clearing_one_functions_graphs_keeps_the_others():
    recorder, counter = Recorder(), Counter()
    graphs = Graphs(recorder)

    def other(values):
        return [values * 2]

    for _ in range(2):
        graphs(counter.add, 1, torch.ones(1))
        graphs(other, torch.ones(1))
    graphs.clear(counter.add)
    counter.total = torch.zeros(1)
    for _ in range(2):
        graphs(counter.add, 1, torch.ones(1))
        assert graphs(other, torch.ones(1))[0].tolist() == [2]
    assert float(counter.total) == 2
    assert [tape.replays for tape in recorder.tapes] == [1, 3, 1]
    assert recorder.fresh == [True, False, False]


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: operation not permitted when stream is capturing\nFor debugging",
    ],
)
@pytest.mark.fault(30)
def test_a_failed_recording_changes_no_result(caplog, text):
    recorder, counter = Recorder(), Counter()
    graphs = Graphs(recorder)
    graphs(counter.add, 1, torch.ones(1))
    recorder.fails = RuntimeError(text)
    for _ in range(3):
        assert graphs(counter.add, 1, torch.ones(2))[1].tolist() == [1, 1]
        graphs(counter.add, 1, torch.ones(3))
        graphs(counter.add, 1, torch.ones(1))
    assert float(counter.total) == 1 + 3 * (2 + 3 + 1)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith(text.partition("\n")[0])
    assert [tape.replays for tape in recorder.tapes] == [3]  # existing graphs are still used
    assert graphs.fixed
    recorder.fails = None
    graphs.clear()  # recording is tried again
    graphs(counter.add, 1, torch.ones(2))
    assert len(recorder.tapes) == 2


def test_an_error_in_our_code_is_raised():
    recorder = Recorder()
    recorder.fails = TypeError("no such argument")
    with pytest.raises(TypeError):
        Graphs(recorder)(Counter().add, 1, torch.ones(1))


@for_any(count=st.integers(1, 40))
def test_runs_have_few_sizes_and_keep_the_order(count):
    whole = list(range(count))
    parts = Graphs(fixed=True).parts(count)
    assert [number for part in parts for number in whole[part]] == whole
    assert {len(whole[part]) for part in parts} <= set(Graphs(fixed=True).sizes(count))
    assert set(Graphs(fixed=True).sizes(count)) <= set(RUN_SIZES)
    assert [whole[part] for part in Graphs().parts(count)] == [whole]


class Device:
    """A fake of torch.cuda that records the calls."""

    def __init__(self, monkeypatch):
        self.calls, self.pools, self.current, self.fails = [], 0, "main", None
        replaced = {
            "Stream": lambda _: Stream(self, "side"),
            "current_stream": lambda _: Stream(self, self.current),
            "stream": self.stream,
            "device": contextlib.nullcontext,
            "CUDAGraph": object,
            "graph": self.graph,
            "graph_pool_handle": self.pool,
        }
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end, raising=False)

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def graph(self, graph, pool, stream):
        self.calls.append(f"capture in pool {pool}")
        self.current = stream.name
        yield
        if self.fails:  # like torch, without restoring the stream
            raise self.fails
        self.current = "main"

    def pool(self):
        self.pools += 1
        return self.pools

    def end(self, index, pool):
        self.calls.append(f"pool {pool} of device {index} ends")

    def launch(self):
        self.calls.append(f"launch on {self.current}")
        return []


class Stream:
    def __init__(self, of, name):
        self.of, self.name, self.device = of, name, torch.device("cuda", 1)

    def wait_stream(self, other):
        self.of.calls.append(f"{self.name} waits for {other.name}")


def test_the_first_run_waits_for_earlier_work_and_later_work_waits_for_it(monkeypatch):
    device = Device(monkeypatch)
    graphs = Graphs(Cuda(torch.device("cuda", 1)))
    graphs(device.launch)
    assert device.calls == [
        "side waits for main",
        "launch on side",
        "main waits for side",
        "capture in pool 1",
        "launch on side",
    ]
    assert device.current == "main"


def test_later_work_waits_for_a_first_run_that_fails(monkeypatch):
    device = Device(monkeypatch)

    def fails():
        device.launch()
        raise RuntimeError("CUDA error")

    with pytest.raises(RuntimeError):
        Graphs(Cuda(torch.device("cuda", 1)))(fails)
    assert device.calls == ["side waits for main", "launch on side", "main waits for side"]


def test_a_pool_of_memory_is_reused_while_a_graph_uses_it(monkeypatch):
    device = Device(monkeypatch)
    graphs = Graphs(Cuda(torch.device("cuda", 1)))
    for value in (1, 2):
        graphs(lambda _: device.launch(), value)
    graphs.clear()
    graphs(lambda _: device.launch(), 3)
    captures = [call for call in device.calls if call.startswith("capture")]
    assert captures == [f"capture in pool {pool}" for pool in (1, 1, 2)]


@pytest.mark.fault(30)
def test_a_failed_capture_restores_the_stream_and_the_allocator(monkeypatch, caplog):
    device = Device(monkeypatch)
    device.fails = RuntimeError("CUDA error: operation failed due to a previous error")
    graphs = Graphs(Cuda(torch.device("cuda", 1)))
    graphs(device.launch)
    assert device.current == "main"
    assert device.calls[-1] == "pool 1 of device 1 ends"
    assert len(caplog.records) == 1
    graphs(device.launch)
    assert device.calls[-1] == "launch on main"


def test_attention_of_a_new_shape_uses_no_cudnn_on_a_gpu():
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with any_shape(torch.device("cpu")):
        assert torch.backends.cuda.cudnn_sdp_enabled() == before
    with any_shape(torch.device("cuda")):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


class HostTensor:
    """A fake of a tensor that records the calls."""

    def __init__(self, calls=()):
        self.calls = list(calls)

    def pin_memory(self):
        return HostTensor([*self.calls, "pinned"])

    def to(self, device, non_blocking):
        return [*self.calls, f"to {device}", "at once" if non_blocking else "waits"]


@pytest.mark.parametrize(("device", "pinned"), [("cpu", []), ("cuda", ["pinned"])])
def test_an_upload_waits_for_no_device(device, pinned):
    """The driver copies only pinned memory without waiting."""
    assert upload(HostTensor(), torch.device(device)) == [*pinned, f"to {device}", "at once"]
