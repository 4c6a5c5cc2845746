"""jobs/train.py on a real Ray: two workers; killed worker and killed driver end where an unbroken run ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from tests.integration.job_runs import Job
from tests.integration.ray_head import RayHead
from tests.integration.s3_server import S3Server
from tests.toy_network import cloudy_picture
from tinyface_core.detect.detector import Detector

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 4


def annotated(folder: Path, count: int, first: int) -> Path:
    """Pictures with bright ovals as faces, one of them marked invalid."""
    lines = []
    for number in range(first, first + count):
        picture = Image.fromarray(cloudy_picture(331, 397, number) // 2)
        rng = np.random.default_rng(number)
        boxes = [[int(x), int(y), 40, 52] for x, y in rng.integers(0, 260, (3, 2))]
        for x, y, width, height in boxes:
            ImageDraw.Draw(picture).ellipse((x, y, x + width, y + height), fill=(250, 220, 180))
        (folder / "images").mkdir(parents=True, exist_ok=True)
        picture.save(folder / "images" / f"{number}.png")
        attributes = [[0, 0, 0, int(place == 2), 0, 0] for place in range(3)]
        lines.append(
            {"image": f"images/{number}.png", "width": 397, "height": 331, "boxes": boxes, "attrs": attributes}
        )
    (folder / "annotations.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("faces")
    data, held_out = annotated(folder / "train", 5, 0), annotated(folder / "val", 2, 100)
    sizes = ["--crops", "48", "--epoch-crops", "12", "--batch", "4", "--validation-crops", "6"]
    return ["--data", str(data), "--validate", str(held_out), "--model", "hr-mobilenetv2", "--workers", "2", *sizes]


def ends_as(unbroken: Path, run: Path) -> None:
    """The same weights, bit by bit, and the same epochs but for the clock."""
    wanted, found = (load_file(folder / "best.safetensors") for folder in (unbroken, run))
    assert all(torch.equal(tensor, found[name]) for name, tensor in wanted.items())
    assert [epoch["val_ap"] for epoch in epochs(run)] == [epoch["val_ap"] for epoch in epochs(unbroken)]


def epochs(run: Path) -> list[dict[str, float]]:
    latest = max(run.glob("checkpoint_*/epochs.json"), key=lambda path: len(json.loads(path.read_text())))
    return json.loads(latest.read_text())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead, options: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    Job(
        folder / "log", ray_head.environment, *options, "--output", str(folder), "--name", "run", script="train.py"
    ).wait().expect(0)
    return folder / "run"


def test_a_run_leaves_a_model_that_detects_and_its_curves(unbroken: Path) -> None:
    assert [epoch["crops"] for epoch in epochs(unbroken)] == [12, 24, 36, 48]
    detector = Detector.load(unbroken / "best.safetensors")
    assert detector.spec.name == "hr-mobilenetv2"
    assert detector.spec.provenance["crops"] in {12, 24, 36, 48}
    assert "jobs/train.py" in detector.spec.provenance["command"]
    detector(cloudy_picture(37, 53))
    with Image.open(unbroken / "curves.png") as picture:
        assert picture.size > (500, 300)
    assert list((unbroken / "tensorboard").glob("events*"))


def test_a_finished_run_is_done_at_once_and_one_of_other_settings_refused(
    tmp_path: Path, options: list[str], unbroken: Path
) -> None:
    """No Ray is needed for either: RAY_ADDRESS leads nowhere."""
    nowhere = {"PATH": "/usr/bin:/bin", "RAY_ADDRESS": "127.0.0.1:1"}
    given = [*options, "--output", str(unbroken.parent), "--name", "run"]
    before = (unbroken / "best.safetensors").stat().st_mtime_ns
    run = Job(tmp_path / "log", nowhere, *given, script="train.py").wait().expect(0)
    assert "best.safetensors" in run.out
    run = Job(tmp_path / "log", nowhere, *given, "--precision", "bf16", script="train.py").wait().expect(2)
    assert "was begun with precision auto, now it is bf16" in run.err
    assert (unbroken / "best.safetensors").stat().st_mtime_ns == before


def test_a_ray_of_its_own_beside_another(tmp_path: Path, ray_head: RayHead, options: list[str]) -> None:
    """Ray Train asked that other Ray for its controller, which had never heard of it: the workers were taken away."""
    short = ["12" if before == "--crops" else value for before, value in zip(["", *options], options, strict=False)]
    given = [*short, "--ray-address", "local", "--output", str(tmp_path), "--name", "run"]
    run = Job(tmp_path / "log", ray_head.environment, *given, script="train.py").wait().expect(0)
    assert "Started training worker group of size 2" in run.err + run.out
    assert "PlacementGroupCleaner" not in run.err + run.out
    assert "UserWarning" not in run.err


def test_a_killed_worker_costs_nothing_but_time(
    tmp_path: Path, ray_head: RayHead, notes: Path, options: list[str], unbroken: Path
) -> None:
    (notes / "kill-trainer-at").write_text("8")  # in the third epoch
    job = Job(
        tmp_path / "log", ray_head.environment, *options, "--output", str(tmp_path), "--name", "run", script="train.py"
    )
    job.wait().expect(0)
    assert not (notes / "kill-trainer-at").exists(), "nobody was killed"
    ends_as(unbroken, tmp_path / "run")


def test_a_killed_driver_goes_on_by_the_same_command_with_data_and_run_on_s3(
    tmp_path: Path, ray_head: RayHead, s3_server: S3Server, bucket: str, options: list[str], unbroken: Path
) -> None:
    store = s3_server.client()
    given = list(options)
    for option in ("--data", "--validate"):
        place = given.index(option) + 1
        folder = Path(given[place])
        for file in (path for path in folder.rglob("*") if path.is_file()):
            store.upload_file(str(file), bucket, f"{folder.name}/{file.relative_to(folder)}")
        given[place] = f"s3://{bucket}/{folder.name}"
    given += ["--output", f"s3://{bucket}/runs", "--name", "run", "--cache", str(tmp_path / "cache")]

    def stored() -> list[str]:
        return [one["Key"] for one in store.list_objects_v2(Bucket=bucket, Prefix="runs/run/").get("Contents", ())]

    killed = Job(tmp_path / "log", ray_head.environment, *given, script="train.py")
    killed.wait_until(lambda: any(key.endswith("/epochs.json") for key in stored()), "a checkpoint")
    assert killed.kill().code != 0
    assert "runs/run/best.safetensors" not in stored()
    Job(tmp_path / "log", ray_head.environment, *given, script="train.py").wait().expect(0)
    for key in stored():
        file = tmp_path / key.removeprefix("runs/")
        file.parent.mkdir(parents=True, exist_ok=True)
        store.download_file(bucket, key, str(file))
    ends_as(unbroken, tmp_path / "run")
    assert (tmp_path / "run" / "curves.png").is_file()
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_wrong_options_are_refused_before_a_ray_starts(tmp_path: Path, options: list[str]) -> None:
    nowhere = {"PATH": "/usr/bin:/bin", "RAY_ADDRESS": "127.0.0.1:1"}
    data = options[1]
    for wrong, message in (
        (["--preset", "slow"], "known are fast, paper"),
        (["--model", "yolo"], "known are hr-resnet50"),
        (["--validate", data], "are in --data too"),
        (["--data", str(tmp_path / "none")], "needs to be a folder with annotations.jsonl"),
        (["--start-from", str(tmp_path / "none.pth")], "none.pth"),
        (["--batch", "0"], "needs a number from 1 on"),
        (["--fast"], "Unknown option"),
    ):
        given = [*options, "--output", str(tmp_path / "runs"), *wrong]
        for option in ("--data", "--validate", "--model", "--batch"):
            if option in wrong and given.count(option) > 1:
                place = given.index(option)
                del given[place : place + 2]
        run = Job(tmp_path / "log", nowhere, *given, script="train.py").wait().expect(2)
        assert message in run.err
        assert "Traceback" not in run.err
    assert not (tmp_path / "runs").exists()
