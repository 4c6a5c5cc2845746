"""DecodePool: children that really crash, hang and eat memory cost one picture, never its neighbours or the caller."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.picture_samples import colour_files, exif, noisy_files, saved, turned, upright_HW3
from tinyface_core.errors import ErrorClass, PictureError, TinyfaceError
from tinyface_core.picture.decode import decode
from tinyface_core.picture.guard import DecodePool, Result
from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.picture.process import Child

ROOT = Path(__file__).parents[2]
JPEG = noisy_files()["jpeg"]
BRIEF = Limits(timeout_s=2.5, memory_bytes=300 << 20)

# Python imports a module of this name at its start: so the children of a test, and only they, get a decoder that
# misbehaves where a word behind the picture's end marker says so.
FAULTS = """
import os, signal, sys, time
if "tinyface_core.picture.child" in sys.orig_argv:
    import tinyface_core.picture.decode as module
    real = module.sniff
    def sniff(data, limits):
        word, _, rest = data[-200:].rpartition(b"#")[2].partition(b":")
        if word == b"SEGV": os.kill(os.getpid(), signal.SIGSEGV)
        if word == b"KILL": os.kill(os.getpid(), signal.SIGKILL)
        if word == b"EXIT": os._exit(3)
        if word == b"HANG":
            if rest: open(rest, "w").close()
            time.sleep(3600)
        if word == b"SLOW": time.sleep(0.15)
        if word == b"LATE": time.sleep(float(rest))
        if word == b"EAT": bytearray(20 << 30)
        if word == b"GROW":
            held = []
            while True: held.append(b"x" * (8 << 20))
        if word == b"ONCE" and not os.path.exists(rest):
            open(rest, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(data, limits)
    module.sniff = sniff
"""


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "faults"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FAULTS)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After every test: no process, no file descriptor, no thread more than before."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert children() == []
    wait_for(lambda: not [t for t in threading.enumerate() if t.name.startswith("decode")])
    assert len(os.listdir("/proc/self/fd")) <= before


def children(of: int | None = None) -> list[int]:
    found = [c for c in psutil.Process(of).children() if c.status() != psutil.STATUS_ZOMBIE]
    return [c.pid for c in found if "tinyface_core.picture.child" in c.cmdline()]


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def error_class(result: Result) -> ErrorClass | None:
    return result.error_class if isinstance(result, PictureError) else None


def same(one: Result, other: Result) -> bool:
    if isinstance(one, PictureError) or isinstance(other, PictureError):
        return one == other
    facts = [(p.format, p.exif_orientation, p.taken_at) for p in (one, other)]
    return facts[0] == facts[1] and np.array_equal(one.rgb_HW3, other.rgb_HW3)


def test_a_pool_gives_what_decoding_here_gives_in_order() -> None:
    """Every format, with turn and time, broken ones between them; pixels are writable and the caller's own."""
    turned_one = saved(turned(upright_HW3(), 6), "JPEG", exif=exif(6, original="2019:07:06 05:04:03"))
    files = {**colour_files(), "turned": turned_one, "text": b"hello", "cut": JPEG[:5000], "empty": b""}
    with DecodePool(2, ahead=5) as pool:
        given = list(pool.decode_ahead(iter(files.items())))
    assert [key for key, _ in given] == list(files)
    for key, result in given:
        assert same(result, decode(files[key])), key
        assert isinstance(result, PictureError) or result.rgb_HW3.flags.writeable


def test_without_children_it_decodes_here() -> None:
    with DecodePool(0) as pool:
        assert children() == []
        given = list(pool.decode_ahead([("a", JPEG), ("b", b"")]))
    assert isinstance(given[0][1], Picture)
    assert error_class(given[1][1]) is ErrorClass.TRUNCATED


def test_items_are_pulled_lazily_and_never_far_ahead() -> None:
    pulled = 0

    def endless() -> Iterator[tuple[int, bytes]]:
        nonlocal pulled
        for number in itertools.count():
            pulled += 1
            yield number, JPEG

    with DecodePool(2, ahead=4) as pool:
        decoded = pool.decode_ahead(endless())
        assert pulled == 0
        for expected in range(20):
            assert next(decoded)[0] == expected
            assert pulled <= expected + 5
        assert pulled > 20, "nothing was decoded ahead"


def test_waiting_pictures_are_bounded_in_bytes() -> None:
    """Room for two: never three at once, whatever `ahead` says; one that is larger than all room still passes."""
    size = 300 * 200 * 3 + len(JPEG)
    pulled: list[str] = []

    def source() -> Iterator[tuple[str, bytes]]:
        for name, data in [*((f"small {i}", JPEG) for i in range(6)), ("large", noisy_files()["png"]), ("last", JPEG)]:
            pulled.append(name)
            yield name, data

    with DecodePool(2, ahead=8, ahead_bytes=2 * size + 1000) as pool:
        decoded = pool.decode_ahead(source())
        for done in range(1, 9):
            assert isinstance(next(decoded)[1], Picture)
            assert len(pulled) <= done + 2
        assert next(decoded, None) is None


FAULTY = {
    "SEGV": (ErrorClass.DECODER_CRASHED, "SIGSEGV"),
    "KILL": (ErrorClass.DECODER_CRASHED, "SIGKILL"),
    "EXIT": (ErrorClass.DECODER_CRASHED, "exit code 3"),
    "HANG": (ErrorClass.TIMED_OUT, "longer than 2.5 s"),
    "EAT": (ErrorClass.OUT_OF_MEMORY, "memory limit"),
    "GROW": (ErrorClass.OUT_OF_MEMORY, "memory limit"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("number", [1, 2])
def test_a_child_that_fails_costs_exactly_its_picture(number: int) -> None:
    """All kinds of failure beside good pictures; one child alone gets through them, too."""
    words = ["", "SEGV", "", "HANG", "EAT", "", "GROW", "", "KILL", "EXIT", ""]
    with DecodePool(number, BRIEF, ahead=6) as pool:
        open_files = len(os.listdir("/proc/self/fd"))
        given = list(pool.decode_ahead((i, JPEG + b"#" + word.encode()) for i, word in enumerate(words)))
        assert len(psutil.Process().children()) <= number, "zombies are left while the pool is open"
        assert len(os.listdir("/proc/self/fd")) <= open_files
    assert [key for key, _ in given] == list(range(len(words)))
    for word, (_, result) in zip(words, given, strict=True):
        if word:
            assert isinstance(result, PictureError)
            assert result.error_class is FAULTY[word][0]
            assert FAULTY[word][1] in result.message
        else:
            assert same(result, decode(JPEG))


@pytest.mark.usefixtures("faults")
def test_a_death_that_was_not_the_pictures_fault_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the kernel ends the child for a neighbour's hunger: tried again, alone, in a fresh child."""
    bad = JPEG + b"#ONCE:" + str(tmp_path / "died").encode()
    with DecodePool(2, BRIEF, ahead=6) as pool:
        given = list(pool.decode_ahead((i, bad if i == 2 else JPEG) for i in range(6)))
    assert (tmp_path / "died").exists()
    assert [error_class(result) for _, result in given] == [None] * 6
    assert "SIGKILL" in caplog.text


@pytest.mark.usefixtures("faults")
def test_idle_children_that_vanish_are_replaced() -> None:
    with DecodePool(2, BRIEF) as pool:
        first = children()
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        assert [error_class(r) for _, r in pool.decode_ahead((i, JPEG) for i in range(6))] == [None] * 6
        assert children()
        assert not set(children()) & set(first)


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize(
    ("share", "ends_as"), [(0.06, None), (0.04, ErrorClass.TIMED_OUT), (0.6, ErrorClass.TIMED_OUT)]
)
def test_on_a_busy_machine_the_limit_is_one_of_the_processors_time(
    share: float, ends_as: ErrorClass | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a large picture would be an error row or not by what else runs there. share: that the child gets."""
    used_s = itertools.count(0, share)  # asked for once at the picture's begin, then each second
    monkeypatch.setattr(Child, "_used_s", lambda child: next(used_s))
    with DecodePool(1, Limits(timeout_s=1.0)) as pool:
        ((_, result),) = pool.decode_ahead([("late", JPEG + b"#LATE:2.5")])
    assert error_class(result) is ends_as


@pytest.mark.usefixtures("faults")
def test_leaving_is_prompt_while_children_hang() -> None:
    with DecodePool(2, Limits(timeout_s=600), ahead=8) as pool:
        decoded = pool.decode_ahead((i, JPEG + (b"#HANG" if i else b"")) for i in range(8))
        assert isinstance(next(decoded)[1], Picture)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2.0  # below one second on a quiet machine
    assert children() == []
    assert [error_class(result) for _, result in decoded] == [ErrorClass.INTERNAL] * 7


def test_a_pool_that_is_not_open_says_so() -> None:
    pool = DecodePool(1)
    with pytest.raises(RuntimeError, match="with DecodePool"):
        next(pool.decode_ahead([("a", JPEG)]))
    with pool:
        pass
    with pytest.raises(RuntimeError, match="with DecodePool"):
        next(pool.decode_ahead([("a", JPEG)]))
    pool.close()
    with pytest.raises(ValueError, match="ahead 1 or more"):
        DecodePool(2, ahead=0)


def test_an_exception_of_the_source_is_the_callers_and_harms_nothing() -> None:
    def source() -> Iterator[tuple[int, bytes]]:
        yield 0, JPEG
        raise OSError("the archive is gone")

    with DecodePool(2, ahead=1) as pool:
        decoded = pool.decode_ahead(source())
        assert isinstance(next(decoded)[1], Picture)
        with pytest.raises(OSError, match="the archive is gone"):
            next(decoded)
        abandoned = pool.decode_ahead((i, JPEG) for i in range(10))
        next(abandoned)
        abandoned.close()
        assert len(list(pool.decode_ahead((i, JPEG) for i in range(5)))) == 5


def test_threads_may_share_a_pool() -> None:
    given: dict[int, list[int]] = {}

    def user(number: int) -> None:
        decoded = pool.decode_ahead((i, JPEG) for i in range(15))
        given[number] = [key for key, result in decoded if not error_class(result)]

    with DecodePool(2, ahead=3) as pool:
        users = [threading.Thread(target=user, args=(n,)) for n in range(3)]
        for thread in users:
            thread.start()
        for thread in users:
            thread.join()
    assert given == {n: list(range(15)) for n in range(3)}


def test_ctrl_c_is_the_parents_affair() -> None:
    with DecodePool(1) as pool:
        (pid,) = children()
        assert os.getpgid(pid) != os.getpgid(0), "a terminal would send Ctrl-C to it"
        os.kill(pid, signal.SIGINT)
        assert isinstance(next(pool.decode_ahead([("a", JPEG)]))[1], Picture)
        assert children() == [pid]


def test_a_child_is_light() -> None:
    """No Ray, no torch in it, one thread: thirty of them must fit beside a model."""
    with DecodePool(1) as pool:
        next(pool.decode_ahead([("a", JPEG)]))
        (pid,) = children()
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in mapped
        assert "_raylet" not in mapped
        assert "cv2" in mapped
        assert psutil.Process(pid).num_threads() == 1
        assert psutil.Process(pid).memory_info().rss < 150 << 20
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == 1000


def test_a_child_that_cannot_start_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TinyfaceError, match=r"/bin/false .* did not start: exit code 1"), DecodePool(2):
        pass


def script(tmp_path: Path, body: str) -> list[str]:
    """A program without `if __name__ == "__main__"`, in a folder from which the package cannot be imported."""
    file = tmp_path / "program.py"
    beginning = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nprint('main runs', flush=True)\n"
    file.write_text(beginning + "from tinyface_core.picture.guard import DecodePool\n" + textwrap.dedent(body))
    return [sys.executable, "-P", str(file)]


def test_the_callers_main_is_never_run_again(tmp_path: Path) -> None:
    """Inside a Ray worker it could not even be imported; here it would open pools without end."""
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file in the working folder was taken for numpy')")
    body = """
        data = open("a.jpg", "rb").read()
        with DecodePool(2) as pool:
            print([result.width for _, result in pool.decode_ahead((i, data) for i in range(3))])
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(script(tmp_path, body), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n") == ["main runs", "[200, 200, 200]", ""], done.stderr


@pytest.mark.usefixtures("faults")
def test_children_die_with_a_parent_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that hangs inside a decoder, where it would never see that its parent is gone."""
    hanging = tmp_path / "hanging"
    (tmp_path / "hang.jpg").write_bytes(JPEG + b"#HANG:" + str(hanging).encode())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "faults"), str(ROOT)]))
    body = """
        data = open(sys.argv[1], "rb").read()
        with DecodePool(2, ahead=1) as pool:
            next(pool.decode_ahead([("a", data)]))
    """
    command = [*script(tmp_path, body), str(tmp_path / "hang.jpg")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as parent:
        wait_for(hanging.exists)
        orphans = [psutil.Process(pid) for pid in children(parent.pid)]
        assert len(orphans) == 2
        parent.kill()
    try:
        wait_for(lambda: not [p for p in orphans if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], 5.0)
    finally:
        for left in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
