"""What is wrong is told before the first write: exit code 2, one sentence with thing and mend, no file touched."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from tests.integration.job_pictures import cloud
from tests.integration.job_runs import Ended, Job, everything_in
from tests.integration.ray_head import RayHead, ray_environment

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

Prepare = Callable[[Path], object]


def nothing(folder: Path) -> None:
    pass


def a_file(name: str, data: bytes = b"words") -> Prepare:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return make


@dataclass(frozen=True)
class Case:
    """options: INPUT OUTPUT stand for the usual ones. told: each must be in the message."""

    options: str
    told: tuple[str, ...]
    prepare: Prepare = nothing


USUAL = "--input in --output out"
CASES = {
    "no such input": Case("--input absent --output out", ("no such input", "absent", "check the spelling")),
    "one of two inputs is not there": Case("--input in absent.tar --output out", ("absent.tar",)),
    "an empty folder": Case("--input hollow --output out", ("empty input", "hollow"), lambda f: (f / "hollow").mkdir()),
    "sidecars only": Case("--input side --output out", ("no pictures", "--all-files"), a_file("side/a.txt")),
    "no input at all": Case("--output out", ("--input is missing",)),
    "no output": Case("--input in", ("--output is missing",)),
    "a word without an option": Case(f"stray {USUAL}", ("stray: belongs to no option",)),
    "a dry run into foreign files": Case(f"{USUAL} --dry-run", ("holds files", "x.doc"), a_file("out/x.doc")),
    "an unknown option where others are missing": Case("--foo --output out", ('Unknown option: "--foo"',)),
    "an option without values": Case(f"{USUAL} --zooms", ("--zooms",)),
    "a server without its name": Case("--input ftp://x/y --output out", ("ftp://", "--storage-option host=")),
    "no bucket": Case("--input s3:// --output out", ("names no bucket",)),
    "no config file": Case(f"{USUAL} --config none.yaml", ("none.yaml", "no such file")),
    "an unknown storage option": Case(
        "--input s3://b/k --output out --storage-option foo=bar", ("--storage-option foo", "no such option")
    ),
    "an unknown option": Case(f"{USUAL} --min-scor 0.5", ("--min-scor", "Did you mean", "--min-score")),
    "a word for a number": Case(f"{USUAL} --limit many", ("--limit", "many")),
    "pruned up to a limit": Case(f"{USUAL} --prune 0.1 --limit 5", ("--prune with --limit",)),
    "a number out of its range": Case(f"{USUAL} --max_error_share 2", ("--max-error-share 2", "from 0 to 1")),
    "a time without end": Case(f"{USUAL} --decode-timeout inf", ("--decode-timeout inf", "above 0 and finite")),
    "GPUs without end": Case(f"{USUAL} --gpus-per-actor inf", ("--gpus-per-actor inf", "finite")),
    "a device that is none": Case(f"{USUAL} --device tpu", ("--device", "tpu", "cuda")),
    "no zoom": Case(f"{USUAL} --zooms 0.5 tiny", ("--zooms 0.5 tiny", "adaptive")),
    "a zoom of nothing": Case(f"{USUAL} --zooms 0", ("--zooms 0",)),
    "no number of actors": Case(f"{USUAL} --actors some", ("--actors some", "2..16")),
    "an unknown model": Case(f"{USUAL} --model hr-resnet5", ("hr-resnet5", "hr-mobilenetv2")),
    "a model that is text": Case(f"{USUAL} --model m.safetensors", ("m.safetensors",), a_file("m.safetensors")),
    "a model of others": Case(
        f"{USUAL} --model m.safetensors", ("not a tinyface checkpoint",), lambda f: save_file({}, f / "m.safetensors")
    ),
    "the output is a file": Case("--input in --output out.parquet", ("is a file",), a_file("out.parquet")),
    "the output holds foreign files": Case(USUAL, ("holds files", "thesis.doc"), a_file("out/thesis.doc")),
    "the output lies inside another one": Case(
        "--input in --output o/images/x", ("lies inside the output", "outside"), a_file("o/_run/settings.json")
    ),
    "the output is not writable": Case("--input in --output /proc/out", ("/proc/out", "permissions")),
    "a column that is not there": Case(
        "--input list.csv --output out --carry label", ("--carry label", "uri, title"),
        a_file("list.csv", b"uri,title\nin/a.jpg,b\n"),
    ),
    "a storage option without a value": Case(f"{USUAL} --storage-option anon", ("--storage-option anon", "key=value")),
    "a config file with an unknown key": Case(
        f"{USUAL} --config c.yaml", ("option: min-scores from",), a_file("c.yaml", b"min_scores: 0.5\n")
    ),
    "a config file that is no table": Case(f"{USUAL} --config c.yaml", ("c.yaml",), a_file("c.yaml", b"- 1\n")),
    "a config file that is not there": Case(f"{USUAL} --config absent.yaml", ("absent.yaml",)),
}  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    ended: Ended
    before: dict[str, tuple[int, int]]
    after: dict[str, tuple[int, int]]


def refuse(root: Path, name: str) -> Refusal:
    folder = root / name.replace(" ", "_")
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.jpg").write_bytes(cloud(1))
    case = CASES[name]
    case.prepare(folder)
    before = everything_in(folder)
    ended = Job(root / "log" / name, ray_environment(), *case.options.split(), cwd=folder).wait()
    return Refusal(ended, before, everything_in(folder))


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """All of them, two at a time: what each costs is the imports."""
    root = tmp_path_factory.mktemp("refused")
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(lambda name: refuse(root, name), CASES), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_refused_with_one_sentence_and_nothing_written(name: str, refusals: dict[str, Refusal]) -> None:
    refusal = refusals[name]
    run = refusal.ended.expect(2)
    assert [word for word in CASES[name].told if word not in run.err] == [], run.err
    assert run.err.startswith("error: ")
    assert len(run.err.strip().splitlines()) == 1, run.err
    assert refusal.after == refusal.before


def test_what_a_cluster_cannot_give_is_said_and_not_waited_for(tmp_path: Path, ray_head: RayHead, model: Path) -> None:
    """On a Ray of our own with one CPU; on a cluster without GPU and without autoscaler; and where no cluster is."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(cloud(1))
    before, log = everything_in(tmp_path), tmp_path.parent / f"{tmp_path.name}-log"
    options = ["--input", "in", "--output", "out", "--model", str(model)]

    one_cpu = ray_environment() | {"RAY_OVERRIDE_RESOURCES": '{"CPU": 1}'}
    run = Job(log, one_cpu, *options, "--actors", "9", "--ray-address", "local", cwd=tmp_path).wait().expect(2)
    assert "9 detectors" in run.err
    assert "1 CPUs" in run.err
    assert "--actors" in run.err
    run = Job(log, ray_head.environment, *options, "--device", "cuda", cwd=tmp_path).wait().expect(2)
    assert "--device cuda" in run.err
    assert "no node has a GPU" in run.err
    asked = ["--gpus-per-actor", "1", "--actors", "1"]
    run = Job(log, ray_head.environment, *options, *asked, cwd=tmp_path).wait().expect(2)
    assert "1 detector of 1 GPUs and 1 CPUs each do not fit: Ray has 2 CPUs and 0 GPUs" in run.err
    run = Job(log, ray_environment(), *options, "--ray-address", "127.0.0.1:1", cwd=tmp_path).wait().expect(2)
    assert "127.0.0.1:1" in run.err
    assert everything_in(tmp_path) == before
