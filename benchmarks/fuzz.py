"""Does any damaged archive or picture break its reader, however long one tries?

    pip install -e '.[fuzz]'          # atheris, to be guided by what was reached; without it, only by chance
    python benchmarks/fuzz.py --seconds 600 [--only tar zip ...] [--seed 1] [--keep FOLDER] [--json FILE]

The properties are those of tests/unit/test_fuzz_archives.py and test_fuzz_pictures.py, with fresh examples: a reader
gives rows and an end, a decoder a picture or an error of the closed list. Each property has a process of its own, as a
library that crashes must not end the rest, and an equal share of the time. What breaks one is kept in the folder, whose
name is printed. Exits 1 where anything was found.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from figures import finish

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ("headers", "pictures")
INSTRUMENTED = ["tinyface_core.archive", "tinyface_core.picture", "tarfile", "zipfile", "gzip"]
LONGEST_INPUT_BYTES = 4096
MEMORY_MIB = 6000
app = App(help=__doc__)


@app.default
def main(
    *,
    seconds: Annotated[float, Parameter(help="of all properties together")] = 600.0,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, help="names of properties")] = (),
    seed: Annotated[int | None, Parameter(help="for the same examples again; drawn and printed without")] = None,
    keep: Annotated[Path | None, Parameter(help="where what breaks a reader is kept; a new folder without")] = None,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """Fuzz the readers of archives and pictures."""
    seed = random.SystemRandom().randrange(1 << 31) if seed is None else seed
    keep = Path(tempfile.mkdtemp(prefix="fuzz-")) if keep is None else keep
    keep.mkdir(parents=True, exist_ok=True)
    names = only or (*archive_names(), *PICTURES)
    guided = importlib.util.find_spec("atheris") is not None
    print(f"{'guided by atheris' if guided else 'by chance: atheris is not installed'}, seed {seed}, kept in {keep}")
    found = []
    for name in names:
        share = max(1, round(seconds / len(names)))
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fuzz-inputs-") as inputs:
            command = [sys.executable, __file__, "one", name, str(share), str(seed), str(keep), inputs]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        told = [line for line in done.stderr.splitlines() if line.startswith(("stat::number_of_executed", "tried"))]
        took_s, ok = time.monotonic() - begun, done.returncode == 0
        print(f"{name}: {'ok' if ok else 'BROKEN'} in {took_s:.0f} s", *told[-1:])
        found.append({"name": name, "ok": ok, "seconds": took_s, "told": told[-1:]})
        if not ok:
            print(done.stdout[-2000:], done.stderr[-6000:], sep="\n")
    finish({"seed": seed, "guided": guided, "properties": found}, json_file)
    sys.exit(0 if all(one["ok"] for one in found) else 1)


def archive_names() -> list[str]:
    sys.path.insert(0, str(ROOT))
    from tests.unit.test_fuzz_archives import ARCHIVES

    return list(ARCHIVES)


@app.command(show=False)
def one(name: str, seconds: int, seed: int, keep: Path, inputs: Path) -> None:
    """One property, in this process. inputs: an empty folder, for what atheris finds worth to be changed again."""
    sys.path.insert(0, str(ROOT))
    guided = importlib.util.find_spec("atheris") is not None
    if guided:
        import atheris

        with atheris.instrument_imports(include=INSTRUMENTED):
            import tests.unit.test_fuzz_archives
            import tests.unit.test_fuzz_pictures  # noqa: F401  # imported here to be instrumented
    with property_of(name) as (strategy, check):
        test = partial(kept, check, keep / name.replace(" ", "-"))
        if guided:
            by_coverage(strategy, test, seconds, seed, inputs)
        else:
            by_chance(strategy, test, seconds, seed)


@contextmanager
def property_of(name: str) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """A strategy, and what must hold for what it makes."""
    from tests.unit import test_fuzz_archives, test_fuzz_pictures
    from tinyface_core.picture.guard import DecodePool

    if name == "headers":
        yield test_fuzz_pictures.HEADERS, lambda damaged: test_fuzz_pictures.check_header(damaged[1]) and None
    elif name == "pictures":
        with DecodePool(2, test_fuzz_pictures.LIMITS, ahead=test_fuzz_pictures.AT_ONCE) as pool:
            yield test_fuzz_pictures.BATCHES, partial(test_fuzz_pictures.check_pictures, pool=pool)
    else:
        file_name, strategy = test_fuzz_archives.ARCHIVES[name]
        yield strategy, partial(test_fuzz_archives.check_archive, file_name)


def kept(check: Callable[[Any], None], place: Path, example: Any) -> None:
    """Checks an example, and keeps the one that breaks; each also before, as a crash would leave nothing else."""
    data = example if isinstance(example, bytes) else repr(example).encode()
    last = place.with_suffix(".last")
    last.write_bytes(data)
    try:
        check(example)
    except BaseException:
        digest = hashlib.sha256(data).hexdigest()[:12]
        last.rename(place.with_suffix(f".{digest}"))
        raise
    last.unlink()


def by_coverage(strategy: Any, test: Callable[[Any], None], seconds: int, seed: int, inputs: Path) -> None:
    """Hypothesis makes an example of the bytes that atheris makes; never comes back."""
    import atheris
    from hypothesis import given, settings

    @settings(database=None, deadline=None)
    @given(strategy)
    def holds(example: Any) -> None:
        test(example)

    drawn = random.Random(seed)  # noqa: S311  # a seed is told to have the same again
    for number in range(20):  # to begin with: of an empty input no example can be made
        (inputs / str(number)).write_bytes(drawn.randbytes(LONGEST_INPUT_BYTES))
    limits = {"max_total_time": seconds, "seed": seed % (1 << 31) or 1, "max_len": LONGEST_INPUT_BYTES}
    limits |= {"rss_limit_mb": MEMORY_MIB, "timeout": 60, "print_final_stats": 1}
    options = [f"-{option}={value}" for option, value in limits.items()]
    atheris.Setup([sys.argv[0], f"-artifact_prefix={inputs}/", *options, str(inputs)], holds.hypothesis.fuzz_one_input)
    atheris.Fuzz()


def by_chance(strategy: Any, test: Callable[[Any], None], seconds: int, seed: int) -> None:
    """Rounds of Hypothesis, each with the next seed."""
    import hypothesis
    from hypothesis import HealthCheck, Phase, given, settings

    tried, end = 0, time.monotonic() + seconds
    phases = (Phase.generate, Phase.shrink)
    while time.monotonic() < end:

        @hypothesis.seed(seed + tried)
        @settings(max_examples=200, database=None, deadline=None, phases=phases, suppress_health_check=HealthCheck)
        @given(strategy)
        def holds(example: Any) -> None:
            test(example)

        holds()
        tried += 200
    print(f"tried {tried}", file=sys.stderr)


if __name__ == "__main__":
    app()
