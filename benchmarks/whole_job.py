"""How much of the model's rate does the whole job keep, and how does it stand beside a plain Ray Data script?

    python benchmarks/whole_job.py --pictures DIR [--model NAME] [--minutes 15] [--plain-minutes 4] [--json FILE]

Three things are timed, with as many detectors of one thread as there are CPUs:

- the bare loop: decoded pictures, in as many processes that do nothing else; before the job and after it;
- the whole job: the same pictures, again and again in tars on a SeaweedFS server on the same CPUs, to tables in the
  same store; from the commit of the first tenth to that of the last, so that start-up and end are apart and as much is
  on its way at one end as at the other;
- benchmarks/plain_ray.py with the straightforward detector and with ours, on loose files on disk; the time of two
  pictures, which is its start-up, is taken off.

Rates are pictures/s by the clock. Prints a Markdown table.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import s3fs
from cyclopts import App, Parameter
from figures import finish
from precision import pictures_in

ROOT = Path(__file__).resolve().parents[1]
TAR_PICTURES = 25  # a tar is a unit: many commits
app = App(help=__doc__)


@dataclass(frozen=True)
class Rate:
    """By the clock."""

    what: str
    pictures: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.pictures / self.seconds


@app.command
def loop(folder: Path, model: str, seconds: float, threads: int = 1) -> None:
    """One process of the bare loop: prints pictures and seconds, of whole rounds."""
    import torch

    from tinyface_core.detect.detector import Detector

    torch.set_num_threads(threads)
    detector, pictures, count = Detector.load(model), list(pictures_in(folder)), 0
    for picture in pictures:
        detector(picture)  # each size is prepared for once
    began = time.monotonic()
    while (took_s := time.monotonic() - began) < seconds or not count:
        for picture in pictures:
            detector(picture)
        count += len(pictures)
    print(json.dumps([count, took_s]))


def bare(folder: Path, model: str, seconds: float, workers: int, threads: int = 1) -> Rate:
    """Processes that do nothing but detect, at the same time, in the memory that the job gives its detectors."""
    sys.path.insert(0, str(ROOT / "jobs"))
    from ray_start import computing_environment  # what the job gives its detectors

    added = computing_environment().get("env_vars", {})
    command = [sys.executable, str(Path(__file__).resolve()), "loop", str(folder), model, str(seconds), str(threads)]
    running = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)} | added,
        )
        for _ in range(workers)
    ]
    said = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    return Rate("bare loop", sum(count for count, _ in said), len(said) / sum(1 / took_s for _, took_s in said))


def tars(datas: list[bytes], count: int, filesystem: s3fs.S3FileSystem, prefix: str) -> None:
    """The pictures again and again, under names of their own."""
    again = enumerate(islice(cycle(datas), count))
    for number in range(-(-count // TAR_PICTURES)):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for index, data in islice(again, TAR_PICTURES):
                member = tarfile.TarInfo(f"{index:07}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        filesystem.pipe(f"{prefix}/{number:05}.tar", packed.getvalue())


def whole_job(datas: list[bytes], count: int, model: str, work: Path) -> tuple[Rate, float, float]:
    """Between the commits of the first and the last tenth; then seconds to the first commit, and the run's own duty."""
    sys.path.insert(0, str(ROOT))
    from tests.integration.s3_server import S3Server

    with S3Server(work / "seaweedfs") as server:
        os.environ.update(server.environment())
        filesystem, bucket = s3fs.S3FileSystem(), server.new_bucket()
        tars(datas, count, filesystem, f"{bucket}/in")
        command = [sys.executable, "jobs/detect_archive.py", "--input", f"s3://{bucket}/in", "--no-report"]
        command += ["--output", f"s3://{bucket}/out", "--model", model, "--unit-pictures", "50"]
        began = time.time()
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"RAY_ADDRESS": "local"})
        filesystem.invalidate_cache()
        commits = sorted(
            (entry["LastModified"].timestamp(), entry["name"]) for entry in filesystem.ls(f"{bucket}/out/images", True)
        )
        facts = json.loads(filesystem.cat(f"{bucket}/out/run.json"))
        first, last = len(commits) // 10, len(commits) - 1 - len(commits) // 10
        done = 0
        for _, name in commits[first + 1 : last + 1]:
            with filesystem.open(name) as file:
                done += pq.ParquetFile(file).metadata.num_rows
    if facts["output"]["ok"] != count:
        raise SystemExit(f"{facts['output']} of {count} pictures")
    rate = Rate("whole job", done, max(1.0, commits[last][0] - commits[first][0]))  # the store tells whole seconds
    return rate, commits[0][0] - began, facts["duty"]


def plain_ray(datas: list[bytes], count: int, model: str, detector: str, workers: int, work: Path) -> Rate:
    """Less the time of its first two pictures."""
    seconds = []
    for many in (2, count):
        folder = work / f"loose-{detector}-{many}"
        folder.mkdir()
        for number, data in enumerate(islice(cycle(datas), many)):
            (folder / f"{number:06}.jpg").write_bytes(data)
        command = [
            sys.executable,
            str(ROOT / "benchmarks" / "plain_ray.py"),
            str(folder),
            str(work / f"out-{detector}-{many}"),
        ]
        command += ["--model", model, "--detector", detector, "--workers", str(workers)]
        done = subprocess.run(
            command, check=True, cwd=ROOT, env=os.environ | {"RAY_ADDRESS": "local"}, stdout=subprocess.PIPE
        )
        seconds.append(float(done.stdout.split()[-1]))
    return Rate(f"plain Ray script, {detector} detector", count - 2, seconds[1] - seconds[0])


@app.default
def main(
    *,
    pictures: Path = ROOT / "demo" / "archive",
    model: str = "hr-mobilenetv2",
    minutes: float = 15,
    plain_minutes: float = 4,
    bare_seconds: float = 60,
    distinct: int = 40,
    workers: int = os.cpu_count() or 1,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """distinct: loose JPEGs, drawn evenly from the folder. minutes: of the job; plain_minutes: of the script."""
    files = sorted(path for path in pictures.rglob("*.jpg") if path.parent.name != "broken")
    files = files[:: max(1, len(files) // distinct)][:distinct]
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with tempfile.TemporaryDirectory(prefix="whole-job-") as name:
        work = Path(name)
        (work / "some").mkdir()
        for number, path in enumerate(files):
            (work / "some" / f"{number:05}.jpg").write_bytes(path.read_bytes())
        datas = [path.read_bytes() for path in files]
        print(f"{model}, {len(files)} pictures again and again, {workers} detectors of one thread\n")
        print("| | pictures | seconds | pictures/s | of the bare loop | the job is faster by |")
        print("|---|---:|---:|---:|---:|---:|", flush=True)
        before = bare(work / "some", model, bare_seconds, workers)
        job, start_s, duty = whole_job(datas, int(60 * minutes * before.rate), model, work)
        after = bare(work / "some", model, bare_seconds, workers)
        mean, rates = (before.rate + after.rate) / 2, list[Rate]()

        def tell(one: Rate) -> None:
            rates.append(one)
            told = f"{one.rate:.2f} | {one.rate / mean:.3f} | {job.rate / one.rate:.2f}"
            print(f"| {one.what} | {one.pictures:,} | {one.seconds:.0f} | {told} |", flush=True)

        for one in (before, job, after):
            tell(one)
        for detector, share in (("plain", 0.3), ("ours", 0.8)) if plain_minutes else ():
            count = max(40, int(60 * plain_minutes * before.rate * share))
            tell(plain_ray(datas, count, model, detector, workers, work))
    print(f"\nfrom the command to the first commit {start_s:.0f} s; duty of the detectors {duty:.3f}")
    found = [asdict(one) | {"rate": one.rate, "of_loop": one.rate / mean} for one in rates]
    finish({"model": model, "rates": found, "duty": duty, "start_s": start_s}, json_file)


if __name__ == "__main__":
    app()
