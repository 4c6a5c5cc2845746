"""Does memory stay flat over a long run?

    python benchmarks/soak.py --pictures 50000 [--sizes 12] [--json FILE] [--plot FILE.svg]
    python benchmarks/soak.py show FILE.json [--plot FILE.svg]

Small JPEGs, all different (cut from the demo's photographs, with noise), half of them loose, half in tars, and some
broken files, are worked by jobs/detect_archive.py as a user runs it, on a Ray of its own. Meanwhile each process is
looked at every few seconds. Its memory is Pss_Anon of /proc/PID/smaps_rollup: what it allocated. Pages of libraries
are left out: other programs on the machine share them, and would be seen in the figures. So is the object store, which
has two lines of its own: what is in use, as the raylet says, and what its file in /dev/shm takes, which keeps what was
once touched. Prints a Markdown table. A soak that is ended ends its Ray and removes its files (one that is killed
leaves the files: soak-* in the temporary folder). `show` makes table and plot again.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import psutil
from cyclopts import App, Parameter
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from soak_watch import KINDS, Sample, Watch
from watched import Output

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo" / "archive"
BROKEN_EVERY, CUT_EVERY = 250, 10  # pictures; tars
STORE = ("object store, used", "object store, held")
COUNTS = ("objects", "driver's files", "driver's threads")
SHARES = (0.1, 0.5, 1.0)
BLOCKS = 20  # of the second half, whose means make the line: neighbouring samples are no independent points
app = App(help=__doc__)


def small_jpegs(count: int, side: int, sizes: int) -> Iterator[bytes]:
    """Sides of side / 2 to side, of so many sizes, or (0) of any; every BROKEN_EVERY-th is broken, in one of five ways.

    A camera knows few sizes, and the network is prepared for each anew: any size at all is the worst case.
    """
    rng = np.random.default_rng(0)
    photographs = []
    for path in sorted(path for path in DEMO.rglob("*.jpg") if path.parent.name != "broken"):
        for longest in (600, 1500):  # faces of two sizes
            with Image.open(path) as picture:
                picture.thumbnail((longest, longest))
                photographs.append(np.asarray(picture.convert("RGB")))
    few = np.random.default_rng(1).integers(side // 2, side + 1, (sizes, 2))
    noise = rng.normal(0, 5, (2 * side, 2 * side, 3))
    for number in range(count):
        whole = photographs[number % len(photographs)]
        any_hw = rng.integers(side // 2, side + 1, 2)
        h, w = np.minimum(few[number % sizes] if sizes else any_hw, whole.shape[:2])
        top, left = rng.integers(whole.shape[0] - h + 1), rng.integers(whole.shape[1] - w + 1)
        y, x = rng.integers(side, size=2)
        crop = whole[top : top + h, left : left + w] + noise[y : y + h, x : x + w]
        data = cv2.imencode(".jpg", np.clip(crop, 0, 255).astype(np.uint8)[..., ::-1])[1].tobytes()
        yield broken(data, number // BROKEN_EVERY) if number % BROKEN_EVERY == 7 else data


def broken(data: bytes, way: int) -> bytes:
    huge = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + 2 * (60_000).to_bytes(4, "big") + b"\x08\x02" + bytes(7)
    ways = (data[: len(data) // 2], b"", b"%PDF-1.4 nothing", huge, data[:40])
    return ways[way % len(ways)]


def make_archive(folder: Path, made: Iterator[bytes], count: int, unit: int) -> None:
    """A unit's worth of loose pictures and a tar of as many, in turns; every CUT_EVERY-th tar ends too early."""
    for number in range(-(-count // unit)):
        some = list(islice(made, unit))
        place = folder / f"{number:05}"
        if number % 2:
            cut = number // 2 % CUT_EVERY == 0
            place.with_suffix(".tar").write_bytes(tar_of(some, cut=cut))
        else:
            place.mkdir(parents=True)
            for index, data in enumerate(some):
                (place / f"{index:05}.jpg").write_bytes(data)


def tar_of(some: list[bytes], *, cut: bool) -> bytes:
    """cut: the last member ends too early."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for index, data in enumerate(some):
            info = tarfile.TarInfo(f"{index:05}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        end = packed.tell()
    return packed.getvalue()[: end - 600 if cut else None]


def soak(work: Path, total: int, unit: int, store_mb: int, every_s: float) -> Iterator[Sample]:
    """Runs the job to its end; gives the samples between its first and its last commit."""
    command = [sys.executable, "jobs/detect_archive.py", "--input", str(work / "in"), "--output", str(work / "out")]
    command += ["--model", "hr-mobilenetv2", "--zooms", "1", "--unit-pictures", str(unit), "--no-report"]
    variables = os.environ | {"RAY_ADDRESS": "local", "RAY_TMPDIR": str(work)}
    variables |= {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(store_mb << 20)}
    with (work / "driver.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=log, stderr=log, process_group=0, preexec_fn=end_with_parent
        )
    watch = Watch(psutil.Process(process.pid), work / "out", work / "ray")
    try:
        while process.poll() is None:
            sample = watch.look()
            if sample and 0 < sample.pictures < total:
                yield sample
            with suppress(subprocess.TimeoutExpired):
                process.wait(every_s)
    finally:
        watch.end()
    if process.returncode:
        raise SystemExit(f"the job ended with {process.returncode}: {(work / 'driver.log').read_text()[-2000:]}")


def end_with_parent() -> None:
    """In the child: SIGTERM when this program is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def line_of(samples: list[Sample], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(pictures, as a share of all that were seen committed; the figure)"""
    pictures_N = np.array([sample.pictures for sample in samples], float)
    return pictures_N / pictures_N[-1], np.array([sample.figure(name) for sample in samples])


def mean_at(samples: list[Sample], name: str, share: float) -> float:
    """Over a twentieth of the pictures, there."""
    share_N, value_N = line_of(samples, name)
    near_N = np.abs(share_N - min(share, 0.975)) <= 0.025
    return float(value_N[near_N].mean()) if near_N.any() else float("nan")


def slope(samples: list[Sample], name: str) -> tuple[float, float]:
    """The figure's growth per 10,000 pictures in the second half, and half of its 95 % interval."""
    share_N, value_N = line_of(samples, name)
    block_N = np.floor((share_N - 0.5) * 2 * BLOCKS).clip(max=BLOCKS - 1)
    there = [block_N == block for block in range(BLOCKS) if (block_N == block).any()]
    pictures = [share_N[mine].mean() * samples[-1].pictures / 10_000 for mine in there]
    means = np.array([value_N[mine].mean() for mine in there])
    if len(there) < 4 or not np.ptp(means):
        return (0.0, 0.0) if len(there) >= 4 else (float("nan"), float("nan"))
    fit = stats.linregress(pictures, means)
    return float(fit.slope), float(fit.stderr * stats.t.ppf(0.975, len(there) - 2))


def show_table(samples: list[Sample]) -> None:
    shares = " | ".join(f"{share:.0%}" for share in SHARES)
    print(f"| | processes | {shares} | highest in 2nd quarter | in 4th | per 10,000 pictures of 2nd half |")
    print("|---|---:|" + "---:|" * (len(SHARES) + 3))
    for name in (*KINDS, "all processes", *STORE, *COUNTS):
        share_N, value_N = line_of(samples, name)
        highest = [value_N[(share_N > at - 0.25) & (share_N <= at)].max(initial=0) for at in (0.5, 1)]
        counts = sorted({sample.processes.get(name, 0) for sample in samples})
        told, started = "-".join(map(str, dict.fromkeys((counts[0], counts[-1])))), samples[-1].started.get(name, 0)
        told = f"{told}, {started} in all" if started > counts[-1] else told if name in KINDS else ""
        values = [*(mean_at(samples, name, share) for share in SHARES), *highest]
        steep, give = slope(samples, name)
        unit = "" if name in COUNTS else ", MB"
        print(f"| {name}{unit} | {told} | {' | '.join(f'{v:,.1f}' for v in values)} | {steep:+.2f} ± {give:.2f} |")


def draw(samples: list[Sample], file: Path) -> None:
    """Above, memory by kind; below, how much more it is than at a tenth of the pictures."""
    figure = Figure(figsize=(8, 8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for name in (*KINDS, *STORE):
        share_N, value_N = line_of(samples, name)
        pictures_N = share_N * samples[-1].pictures
        (line,) = above.plot(pictures_N, value_N, linewidth=1.2, label=name)
        below.plot(pictures_N, value_N - mean_at(samples, name, SHARES[0]), linewidth=1, color=line.get_color())
    above.set(ylabel="MB", ylim=(0, None))
    below.set(ylabel="MB more than at 10 %", xlabel="pictures committed")
    below.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize="small")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.savefig(file, metadata={"Date": None})


@app.command
def show(file: Path, *, plot: Path | None = None) -> None:
    """Table and plot of a soak that was measured."""
    told = json.loads(file.read_text())
    print("; ".join(f"{name}: {value}" for name, value in told["about"].items()) + "\n")
    samples = [Sample(**sample) for sample in told["samples"]]
    show_table(samples)
    if plot:
        draw(samples, plot)


@app.default
def main(
    *,
    pictures: int = 50_000,
    side: int = 160,
    sizes: int = 0,
    unit: int = 100,
    store_mb: int = 150,
    every_s: float = 5.0,
    json_file: Annotated[Path, Parameter("--json")] = Path("soak.json"),
    plot: Path | None = None,
) -> None:
    """Makes the archive, works it, and tells.

    side: the longest, in px. sizes: how many different ones, or 0: any. unit: pictures committed together.
    store_mb: size of Ray's object store; where it is larger than the archive, readers are done when detectors have
    hardly begun, and only these are soaked.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or nothing would be tidied up
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    work, samples = Path(tempfile.mkdtemp(prefix="soak-")), list[Sample]()
    try:
        make_archive(work / "in", small_jpegs(pictures, side, sizes), pictures, unit)
        with suppress(KeyboardInterrupt):  # then the figures are of what was done until then
            for sample in soak(work, pictures, unit, store_mb, every_s):
                samples.append(sample)
        if not samples:
            raise SystemExit("The job was over before anything was seen of it: give more --pictures.")
        rows = Output(work / "out").query("SELECT coalesce(error_class, status), count(*) FROM IMAGES GROUP BY 1")
        faces = Output(work / "out").query("SELECT count(*) FROM DETECTIONS")[0][0]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    about = {
        "pictures": pictures,
        "side": side,
        "sizes": sizes or "any",
        "unit": unit,
        "store MB": store_mb,
        "seconds": round(samples[-1].seconds),
        "faces": faces,
    }
    about |= {"rows": {str(row[0]): row[1] for row in rows}, "cpus": os.cpu_count(), "python": sys.version.split()[0]}
    json_file.write_text(json.dumps({"about": about, "samples": [asdict(sample) for sample in samples]}) + "\n")
    show(json_file, plot=plot)


if __name__ == "__main__":
    app()
