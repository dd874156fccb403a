"""What all benchmark scripts share: measurements, clocks, ceilings of the machine, JSON files.

A script makes ``Row``s and hands them to ``save``, which prints them and writes

    {"script", "command", "date", "machine": {...}, "ceilings": {...}, "rows": [{...}], ...}

where every row has the fields of ``Row``, and what the script adds comes last, under its own keys.
"""

import argparse
import datetime
import gc
import os
import platform
import resource
import shlex
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import profile

from kyvo.common.devices import resolve_device
from kyvo.common.files import write_json

# Side of the square matrices, and bytes, that ceilings are measured with.
_MATMUL_SIDE = {"cuda": 8192, "cpu": 1024}
_COPY_BYTES = {"cuda": 2**31, "cpu": 2**27}


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what: what was measured, in words.
        value, unit: the metric.
        reference: the value of what it is compared with; None: there is none.
        reference_source: what that is: a step measured in the same run, a paper's table.
        ceiling: the most that the machine could give; None: not known.
        ceiling_source: where that comes from.
        note: what a reader must know besides.
    """

    what: str
    value: float
    unit: str
    reference: float | None = None
    reference_source: str = ""
    ceiling: float | None = None
    ceiling_source: str = ""
    note: str = ""

    def __str__(self) -> str:
        parts = [f"{self.what:58} {self.value:12,.4g} {self.unit}"]
        if self.reference:
            parts.append(f"{self.value / self.reference:.2f} x {self.reference_source}")
        if self.ceiling:
            parts.append(f"{self.value / self.ceiling:.0%} of {self.ceiling_source}")
        return "  ".join([*parts, self.note]).rstrip()


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags of every benchmark: ``--device`` and ``--output``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where")
    parser.add_argument("--output", type=Path, help="JSON file for the rows")
    return parser


def device_of(args: argparse.Namespace) -> torch.device:
    """The device that ``--device`` means."""
    return resolve_device(args.device)


def wait_for(device: torch.device) -> None:
    """Return when ``device`` has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(
    function: Callable[[], Any], device: torch.device, warmup: int = 2, repeats: int = 5
) -> float:
    """Median time of a call: device events on a GPU, else the host's clock."""
    for _ in range(warmup):
        function()
    return statistics.median(_seconds(function, device) for _ in range(repeats))


def _seconds(function: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    function()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def clear() -> None:
    """Forget the case before: its tensors, and what was compiled for it."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak; the peak of a process on the CPU is that since its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: most that tensors held on a GPU, or that this process held in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine(device: torch.device) -> dict[str, str]:
    """What the rows were measured on."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else _cpu_name(),
        "cores": f"{len(os.sched_getaffinity(0))}, {torch.get_num_threads()} threads used",
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda) if is_gpu else "none",
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def ceilings(device: torch.device) -> dict[str, float]:
    """FLOP/s of a large matmul (bfloat16, on a CPU float32) and bytes/s of a copy (read + write).

    Random data: a GPU multiplies zeros faster, at a higher clock.
    """
    side, size = _MATMUL_SIDE[device.type], _COPY_BYTES[device.type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.randint(256, (size,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    matmul = median_seconds(lambda: first @ second, device, 3, 10)
    copy = median_seconds(lambda: target.copy_(source), device, 3, 10)
    return {"matmul_flops_per_s": 2 * side**3 / matmul, "copy_bytes_per_s": 2 * size / copy}


def save(
    output: Path | None,
    script: str,
    argv: Sequence[str],
    device: torch.device,
    measured_ceilings: Mapping[str, float],
    rows: Iterable[Row],
    details: Mapping[str, Any] | None = None,
) -> None:
    """Print ``rows`` as they come, and write them to ``output`` if it is given.

    The file is written anew after every row, so that a run that is cut short leaves what it has.

    Args:
        script: the path from the repository's root.
        details: go in as they are; may be filled while the rows are measured.
    """
    record: dict[str, Any] = {
        "script": script,
        "command": shlex.join(["python3", script, *argv]),
        "date": datetime.date.today().isoformat(),
        "machine": machine(device),
        "ceilings": dict(measured_ceilings),
        "rows": [],
    }

    def write() -> None:
        if output is not None:
            write_json(output, {**record, **(details or {})})

    for row in rows:
        print(row, flush=True)
        record["rows"].append(asdict(row))
        write()
    write()


def kernel_table(recorded: profile, top: int = 20) -> list[dict[str, Any]]:
    """Name, calls, milliseconds and share of the kernels that take most of the device's time.

    Without a GPU in the recording: of the operators, on the host.
    """
    events = list(recorded.key_averages())
    kernels = [
        event
        for event in events
        # An annotation lasts as long as the kernels under it, which are listed themselves.
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]
    timed = [
        (event.self_device_time_total if kernels else event.self_cpu_time_total, event)
        for event in kernels or events
    ]
    timed.sort(key=lambda item: item[0], reverse=True)
    total = sum(time for time, _ in timed) or 1.0
    return [
        {"name": event.key, "calls": event.count, "milliseconds": time / 1e3, "share": time / total}
        for time, event in timed[:top]
    ]
