"""What each question of docs/analytics.md must be answered, counted in plain Python from the rows of the tables."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Row = dict[str, Any]


class Truth:
    """The rows of a whole output, faces with the columns of their picture and `px`, their height; and each answer."""

    def __init__(self, folder: Path) -> None:
        self.images: list[Row] = rows_of(folder / "images")
        pictures = {row["image_id"]: row for row in self.images}
        detections = rows_of(folder / "detections")
        self.faces: list[Row] = [pictures[row["image_id"]] | row | {"px": height_px(row)} for row in detections]
        self.ok = [row for row in self.images if row["status"] == "ok"]

    def faces_of(self) -> list[list[Row]]:
        """The faces of each picture that has some."""
        found = defaultdict(list)
        for face in self.faces:
            found[face["image_id"]].append(face)
        return list(found.values())

    def answer(self, question: str) -> list[Row]:
        return ANSWERS[question](self)


def rows_of(folder: Path) -> list[Row]:
    files = sorted(folder.glob("*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def height_px(face: Row) -> float:
    """In float32, as the columns are."""
    return pc.subtract(pa.scalar(face["y2"], pa.float32()), pa.scalar(face["y1"], pa.float32())).as_py()


def grouped(rows: list[Row], key: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
    """Sorted by key, None first."""
    found = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return sorted(found.items(), key=lambda item: (item[0] is not None, item[0]))


def total(rows: list[Row]) -> int:
    return sum(row["num_faces"] for row in rows)


def taken_on(row: Row) -> date | None:
    return row["taken_at"] and row["taken_at"].date()


def whole(truth: Truth) -> list[Row]:
    return [{"told": total(truth.images), "found": len(truth.faces)}]


def by_day(truth: Truth) -> list[Row]:
    return [
        {"day": day, "pictures": len(rows), "faces": total(rows), "largest_crowd": max(r["num_faces"] for r in rows)}
        for day, rows in grouped(truth.ok, taken_on)
    ]


def by_day_or_name(truth: Truth) -> list[Row]:
    def day(row: Row) -> date | None:
        dates = re.findall(r"\d{4}-\d\d-\d\d", f"{row['uri']}/{row['member'] or ''}")
        return taken_on(row) or (date.fromisoformat(dates[-1]) if dates and dates[-1] != "2017-02-29" else None)

    return [
        {"day": day, "pictures": len(rows), "without_exif_time": sum(row["taken_at"] is None for row in rows),
         "faces": total(rows)}
        for day, rows in grouped(truth.ok, day)
    ]  # fmt: skip


def first(rows: list[tuple[float, Row]], columns: str, count: int = 10) -> list[Row]:
    """The rows with the largest numbers, ties by id."""
    rows = sorted(rows, key=lambda item: (-item[0], item[1]["image_id"]))[:count]
    return [{name: row[name] for name in columns.split()} for _, row in rows]


def crowded(truth: Truth) -> list[Row]:
    return first([(row["num_faces"], row) for row in truth.images], "uri member width height num_faces")


def dense(truth: Truth) -> list[Row]:
    found = []
    for faces in truth.faces_of():
        area_px = faces[0]["width"] * faces[0]["height"]
        density = len(faces) / (area_px / 1e6)
        covered = sum((face["x2"] - face["x1"]) * (face["y2"] - face["y1"]) for face in faces) / area_px
        if min(faces[0]["width"], faces[0]["height"]) >= 200:
            found.append((density, faces[0] | {"faces_per_megapixel": density, "covered": covered}))
    return first(found, "uri member num_faces faces_per_megapixel covered")


def by_height(truth: Truth) -> list[Row]:
    bands = {"under 10 px": (0, 10), "10-20 px": (10, 20), "20-40 px": (20, 40), "40-140 px": (40, 140)}
    answer = []
    for band, (low, high) in (bands | {"140 px and more": (140, 10**9)}).items():
        faces = [face for face in truth.faces if low <= face["px"] < high]
        mean_score = sum(face["score"] for face in faces) / len(faces)
        answer.append({"band": band, "lowest_px": min(face["px"] for face in faces), "found": len(faces),
                       "share": len(faces) / len(truth.faces), "mean_score": mean_score})  # fmt: skip
    return answer


def under_15_px(truth: Truth) -> list[Row]:
    found = []
    for faces in truth.faces_of():
        px = [face["px"] for face in faces if face["px"] < 15 and face["y1"] > 0 and face["y2"] < face["height"]]
        if px:
            found.append((len(px), faces[0] | {"small_faces": len(px), "smallest_px": min(px)}))
    return first(found, "uri member small_faces smallest_px", len(found))


def limits(truth: Truth) -> list[Row]:
    return [
        {"min_face_px": limit, "pictures_with_faces": len({face["image_id"] for face in faces}), "found": len(faces),
         "smallest_px": min(face["px"] for face in faces),
         "share_near_limit": sum(face["px"] < 1.5 * limit for face in faces) / len(faces)}
        for limit, faces in grouped(truth.faces, lambda face: face["min_face_px"])
    ]  # fmt: skip


def without_faces(truth: Truth) -> list[Row]:
    without = sum(row["num_faces"] == 0 for row in truth.ok)
    return [{"pictures": len(truth.ok), "without_faces": without, "share": without / len(truth.ok)}]


def by_album(truth: Truth) -> list[Row]:
    return [
        {"album": album, "pictures": len(rows), "faces": total(rows), "faces_per_picture": total(rows) / len(rows)}
        for album, rows in grouped(truth.ok, lambda row: row["album"])
    ]


def error_shares(truth: Truth) -> list[Row]:
    def archive(row: Row) -> str:
        return (
            row["uri"] if row["uri"].lower().endswith((".tar", ".zip", ".gz")) else row["uri"].rpartition("/")[0] + "/"
        )

    answer = []
    for name, rows in grouped(truth.images, archive):
        classes = Counter(row["error_class"] for row in rows if row["error_class"])
        for kind, count in classes.items():
            answer.append({"archive": name, "error_class": kind, "pictures": count, "share": count / len(rows)})
    return sorted(answer, key=lambda row: (-row["share"], row["archive"], row["error_class"]))


def by_score(truth: Truth) -> list[Row]:
    cuts = sorted({int(face["score"] * 20) for face in truth.faces})
    left = {cut: sum(face["score"] >= cut / 20 for face in truth.faces) for cut in cuts}
    return [{"cut": cut / 20, "faces_left": left[cut], "share": left[cut] / len(truth.faces)} for cut in cuts]


def unsure(truth: Truth) -> list[Row]:
    found = []
    for faces in truth.faces_of():
        count = sum(face["score"] < 0.7 for face in faces)
        if count:
            found.append((count, faces[0] | {"unsure": count, "share": count / len(faces)}))
    return first(found, "uri member num_faces unsure share")


def copies(truth: Truth) -> list[Row]:
    once = {row["sha256"]: row["num_faces"] for row in truth.ok}
    return [{"pictures": len(truth.ok), "pictures_once": len(once),
             "faces": total(truth.ok), "faces_once": sum(once.values())}]  # fmt: skip


ANSWERS: dict[str, Callable[[Truth], list[Row]]] = {
    "Is what I read whole?": whole,
    "How many faces are there a day?": by_day,
    "What day was it, where there is no EXIF time?": by_day_or_name,
    "Which pictures are the most crowded?": crowded,
    "Where do faces stand closest?": dense,
    "How high are the faces?": by_height,
    "Which pictures have faces under 15 px?": under_15_px,
    "How small a face could have been found at all?": limits,
    "What share of pictures has no face?": without_faces,
    "How many faces has each value of a carried column?": by_album,
    "What share of each archive are error rows, and why?": error_shares,
    "Where should I cut by score?": by_score,
    "Which pictures should a person look at?": unsure,
    "How many faces are there if copies count once?": copies,
}
