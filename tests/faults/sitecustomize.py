"""Faults for the tests of the job: real deaths, in the processes that users have. Python imports this at its start.

On PYTHONPATH of a Ray head (its workers, and their decoding children) and of a driver. Nothing happens unless asked:

- by a picture: its first pixel names a fault of the detector (`DEADLY` and those below it), a marker in its bytes one
  of the decoder (`tinyface-fault:crash`, `:hang`, `:eat`, or `:while:PATH`, a crash as long as this file is there), or
  of whoever reads it (`tinyface-fault:reader`);
- by TINYFACE_TEST_KILL=detections:3 in a driver's environment: its process group dies as the third detections file
  was written, before the images file (`images:3`: after the third commit);
- by a name: `changes-3.jpg` is another version at each of its first three reads;
- by a file `kill-trainer-at` in the folder of TINYFACE_TEST_NOTES: the last training worker dies at that step, once;
- with TINYFACE_TEST_NOTES=folder each picture that a detector takes is a line `width height` in folder/<pid>.
"""

import importlib.util
import os
import re
import signal
import sys
import threading
import time

DEADLY = {(250, 1, 2): signal.SIGKILL, (250, 1, 3): signal.SIGSEGV}
RAISES, SLOW, SLOW_S = (250, 1, 4), (250, 1, 5), 0.2
MARKER = b"tinyface-fault:"


def break_detector(module):
    detect = module.Detector.__call__

    def broken(self, rgb_HW3, **shown):
        pixel = tuple(int(value) for value in rgb_HW3[0, 0])
        if "TINYFACE_TEST_NOTES" in os.environ:
            with open(os.path.join(os.environ["TINYFACE_TEST_NOTES"], str(os.getpid())), "a") as notes:
                height, width = shown.get("size_hw") or rgb_HW3.shape[:2]
                notes.write(f"{width} {height}\n")
        if pixel in DEADLY:
            os.kill(os.getpid(), DEADLY[pixel])
            time.sleep(60)  # the signal comes to the process, not to this line
        if pixel == SLOW:
            time.sleep(SLOW_S)
        if pixel == RAISES:
            raise RuntimeError("a detector that fails on this picture")
        return detect(self, rgb_HW3, **shown)

    module.Detector.__call__ = broken


def break_decoder(module):
    if "tinyface_core.picture.child" not in sys.orig_argv:
        return
    decode = module._decode

    def broken(data, header, limits):
        _, marker, fault = data.partition(MARKER)
        if marker and fault.startswith(b"while:") and os.path.exists(fault[6:].partition(b" ")[0]):
            os.kill(os.getpid(), signal.SIGSEGV)
        if marker and fault.startswith(b"crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if marker and fault.startswith(b"hang"):
            time.sleep(3600)
        if marker and fault.startswith(b"eat"):
            bytearray(20 << 30)
        return decode(data, header, limits)

    module._decode = broken


def break_storage(module):
    read, write, counted, written = module.Storage.read, module.Storage.write, threading.Lock(), [0]
    table, _, number = os.environ.get("TINYFACE_TEST_KILL", "").partition(":")

    def changing(read):
        def broken(self, uri, *where):
            change(uri)
            return read(self, uri, *where)

        return broken

    def deadly_read(self, uri, *where):
        change(uri)
        data = read(self, uri, *where)
        if MARKER + b"reader" in data:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return data

    def deadly_write(self, uri, data):
        write(self, uri, data)
        if table and f"/{table}/part-" in uri:
            with counted:
                written[0] += 1
                if written[0] == int(number):
                    os.killpg(os.getpgrp(), signal.SIGKILL)

    module.Storage.read, module.Storage.write = deadly_read, deadly_write
    module.Storage.open, module.Storage.open_stream = (
        changing(module.Storage.open),
        changing(module.Storage.open_stream),
    )


def change(uri):
    """A file `changes-3.jpg` with an mtime of 1000 s is a second younger at each of its first three reads."""
    name = re.search(r"/changes-(\d+)\.[^/]*$", uri)
    path = uri.removeprefix("file://")
    if name and os.stat(path).st_mtime < 1000 + int(name[1]):
        os.utime(path, (os.stat(path).st_mtime + 1,) * 2)


def break_trainer(module):
    step = module.Trainer.step

    def broken(self, batch):
        order = os.path.join(os.environ.get("TINYFACE_TEST_NOTES", "/nonexistent"), "kill-trainer-at")
        if self.world.rank == self.world.size - 1 and os.path.exists(order):
            with open(order) as file:
                at = int(file.read())
            if self.step_number == at:
                os.unlink(order)
                os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch)

    module.Trainer.step = broken


BROKEN = {
    "tinyface_core.train.loop": break_trainer,
    "tinyface_core.detect.detector": break_detector,
    "tinyface_core.picture.decode": break_decoder,
    "tinyface_core.storage": break_storage,
}


class Breaker:
    """Finds modules as Python does, and breaks those of BROKEN right after their code has run."""

    def find_spec(self, name, path=None, target=None):
        if name not in BROKEN:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        run = spec.loader.exec_module

        def run_and_break(module):
            run(module)
            BROKEN[name](module)

        spec.loader.exec_module = run_and_break
        return spec


sys.meta_path.insert(0, Breaker())
