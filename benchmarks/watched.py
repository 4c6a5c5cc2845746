"""An output while runs on it are killed: what is in it, and a reader that asks all the time for what is double."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

Picture = tuple[str, str | None, str, int]  # uri, member, status, number of faces


class Output:
    """The tables of one output, over plain globs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def committed(self, since: float = 0.0) -> int:
        """Units, of which the record was written since then (seconds since 1970)."""
        times = []
        for path in (self.folder / "images").glob("part-*.parquet"):
            with suppress(FileNotFoundError):
                times.append(path.stat().st_mtime)
        return sum(time_s > since for time_s in times)

    def claimed(self, since: float) -> bool:
        """Whether a driver is at work that has come since then: from its claim on it plans and works."""
        for path in (self.folder / "_run" / "claims").glob("*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime > since:
                    return True
        return False

    def query(self, sql: str) -> list[tuple[object, ...]]:
        images, detections = (f"'{self.folder}/{table}/**/*.parquet'" for table in ("images", "detections"))
        with duckdb.connect() as connection:
            return connection.execute(sql.replace("IMAGES", images).replace("DETECTIONS", detections)).fetchall()

    def double(self) -> list[str]:
        """What a reader must never see, at any moment, whatever else is going on."""
        rows = self.query("SELECT image_id FROM IMAGES GROUP BY 1 HAVING count(*) > 1")
        faces = self.query(
            "SELECT image_id FROM (SELECT image_id, commit, num_faces FROM IMAGES) i "
            "JOIN (SELECT image_id, commit FROM DETECTIONS) d USING (image_id, commit) "
            "GROUP BY image_id, num_faces HAVING count(*) > num_faces"
        )
        return [f"{len(found)} {what} are double" for what, found in (("pictures", rows), ("faces", faces)) if found]

    def pictures(self) -> Counter[Picture]:
        joined = self.query(
            "SELECT uri, member, coalesce(error_class, status), count(d.image_id) FROM IMAGES i "
            "LEFT JOIN DETECTIONS d USING (image_id) GROUP BY i.image_id, uri, member, error_class, status"
        )
        return Counter(
            (str(uri), member and str(member), str(status), int(str(n))) for uri, member, status, n in joined
        )


@dataclass
class Reader:
    """Asks for what is double, over and over, from a thread. repeated: queries that a redo broke, and were repeated."""

    output: Output
    queries: int = 0
    repeated: int = 0
    wrong: set[str] = field(default_factory=set)

    @contextmanager
    def reading(self) -> Iterator[None]:
        ended = threading.Event()

        def read() -> None:
            while not ended.wait(0.3):
                if not self.output.committed():
                    continue
                try:
                    self.wrong |= {f"a reader: {what}" for what in self.output.double()}
                    self.queries += 1
                except duckdb.Error:
                    self.repeated += 1

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
