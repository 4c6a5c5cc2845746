"""The report of an output: one HTML file that needs no network, no script and no other file.

Reads the tables (summary.py), the pictures that stand out from their source (pictures.py), and what the run says of
itself. The page forbids scripts and requests by its own Content-Security-Policy, and the template escapes all text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from tinyface_core.report import plots, text
from tinyface_core.report.draw import hex_colour
from tinyface_core.report.gallery import Shown, show
from tinyface_core.report.pictures import read_pictures
from tinyface_core.report.queries import queries_for
from tinyface_core.report.summary import PictureFacts, Summary, read_boxes, summarise
from tinyface_core.report.throughput import throughput_of
from tinyface_core.storage import Storage

MAX_GALLERY_BYTES = 9_000_000
_COLOUR_STOPS = 16  # a gradient between these is within two levels of the whole map


@dataclass(frozen=True)
class _Figure:
    """A picture of the gallery with what its caption tells."""

    facts: PictureFacts
    where: text.Place
    shown: Shown


def write_report(
    storage: Storage,
    output_uri: str,
    run: Mapping[str, Any],
    *,
    input_storage: Storage | None = None,
    max_pictures: int = 24,
) -> str:
    """Writes `report.html` into an output and returns its uri.

    Args:
        storage: reads and writes the output.
        run: the content of run.json. Used where present, at the top or under `settings`: `finished_at` (ISO time),
            `wall_s`, `pictures_per_s`, `inputs`, `model`, `device`, `precision`, `zooms`, `min_score`,
            `skipped` (extension -> count); `settings` and `versions` are shown whole, without credentials.
        input_storage: reads the pictures; by default `storage`. A picture that cannot be read again, or is another
            version by now, is listed with the reason.
        max_pictures: drawn in all; half of them the most crowded, half those with the tiniest faces.
    Raises:
        StorageError: the tables cannot be read or the file cannot be written.
    """
    summary = summarise(storage, output_uri, top=max_pictures)
    crowded, tiniest = _chosen(summary, max_pictures)
    figures, unread = _figures(storage, input_storage or storage, [*crowded, *tiniest])
    html = render(
        storage.canonical(output_uri),
        summary,
        run,
        crowded=[figures[facts.image_id] for facts in crowded if facts.image_id in figures],
        tiniest=[figures[facts.image_id] for facts in tiniest if facts.image_id in figures],
        unread=unread,
        endpoint_url=storage.options.endpoint_url,
    )
    report_uri = storage.canonical(output_uri).rstrip("/") + "/report.html"
    storage.write(report_uri, html.encode("utf-8", "backslashreplace"))
    return report_uri


def render(
    output_uri: str,
    summary: Summary,
    run: Mapping[str, Any],
    *,
    crowded: Sequence[_Figure] = (),
    tiniest: Sequence[_Figure] = (),
    unread: Sequence[tuple[PictureFacts, str]] = (),
    endpoint_url: str | None = None,
) -> str:
    """The page as text; reads and writes nothing."""
    return template("report.html.jinja").render(
        css=style(),
        page=_page(output_uri, summary, run),
        summary=summary,
        crowded=crowded,
        tiniest=tiniest,
        unread=[(facts, text.place_of(facts.uri, facts.member), text.shown(why)) for facts, why in unread],
        colour_stops=[(s / _COLOUR_STOPS, hex_colour(s / _COLOUR_STOPS)) for s in range(_COLOUR_STOPS + 1)],
        charts=_charts(summary),
        throughput=_throughput(summary, run),
        chart_width=plots.WIDTH,
        chart_height=plots.HEIGHT,
        error_rows=[(row, text.place_of(row.uri, row.member)) for row in summary.error_rows],
        queries=queries_for(output_uri, endpoint_url),
        settings=list(text.flat(_mapping(run.get("settings")))),
        versions=list(text.flat(_mapping(run.get("versions")))),
    )


def _chosen(summary: Summary, max_pictures: int) -> tuple[list[PictureFacts], list[PictureFacts]]:
    """(crowded, tiniest), picked in turns, so that a picture that leads in both is shown once and starves neither.

    At most half of max_pictures each; tiniest are only pictures whose faces are no larger than is usual here.
    """
    usual_px = (summary.median_height_px or 0) + 1
    by_faces = iter(summary.crowded)
    by_height = (facts for facts in summary.tiniest if facts.median_px <= usual_px)
    crowded: list[PictureFacts] = []
    tiniest: list[PictureFacts] = []
    taken: set[str] = set()
    for turn in range(max_pictures):
        ranked, chosen = (by_height, tiniest) if turn % 2 else (by_faces, crowded)
        facts = next((facts for facts in ranked if facts.image_id not in taken), None)
        if facts is not None:
            chosen.append(facts)
            taken.add(facts.image_id)
    return crowded, tiniest


def _figures(
    storage: Storage, input_storage: Storage, chosen: Sequence[PictureFacts]
) -> tuple[dict[str, _Figure], list[tuple[PictureFacts, str]]]:
    """(image_id -> figure, pictures that could not be read with the reason); one picture in memory at a time."""
    boxes = read_boxes(storage, chosen)
    figures: dict[str, _Figure] = {}
    unread: list[tuple[PictureFacts, str]] = []
    left_bytes = MAX_GALLERY_BYTES
    for done, (facts, picture) in enumerate(read_pictures(input_storage, chosen)):
        if isinstance(picture, str):
            unread.append((facts, picture))
            continue
        shown = show(picture.rgb_HW3, boxes[facts.image_id], left_bytes // (len(chosen) - done))
        left_bytes = max(0, left_bytes - shown.size_bytes)
        figures[facts.image_id] = _Figure(facts, text.place_of(facts.uri, facts.member), shown)
    return figures, unread


def _page(output_uri: str, summary: Summary, run: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the head, as text."""
    min_score = text.number(_said(run, "min_score"))
    tiny = sum(count for _, count in summary.faces_by_height()[:2])
    return {
        "name": text.place_of(output_uri.rstrip("/"), None).name,
        "output": text.place_of(output_uri, None).path,
        "date": text.date(_said(run, "finished_at")),
        "rate": text.rate(_said(run, "pictures_per_s")),
        "errors": summary.by_status["error"],
        "error_counts": _shares(sorted(summary.errors.items(), key=lambda item: (-item[1], item[0]))),
        "facts": _facts(summary, run),
        "tiny_share": text.share(tiny, summary.faces) if tiny else "",
        "min_score": min_score if min_score is not None and 0 <= min_score <= 1 else None,
        "min_score_text": f"{min_score:.2g}" if min_score is not None else "",
    }


def _facts(summary: Summary, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    device = [text.listed(_said(run, key)) for key in ("device", "precision")]
    skipped = {str(k): text.number(v) or 0 for k, v in _mapping(run.get("skipped")).items()}
    most_first = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{text.shown(kind)}\u00a0{text.grouped(count)}" for kind, count in most_first[:12] if count]
    if len(most_first) > 12:
        named.append(f"{len(most_first) - 12} more kinds {text.grouped(sum(count for _, count in most_first[12:]))}")
    formats = [f"{text.shown(kind)}\u00a0{text.grouped(count)}" for kind, count in summary.by_format.most_common()]
    facts = [
        ("Model", text.listed(_said(run, "model")), False),
        ("Device", ", ".join(filter(None, device)), False),
        ("Zooms", text.listed(_said(run, "zooms")), False),
        ("Time", text.duration(_said(run, "wall_s")), False),
        ("Formats", " \u00b7 ".join(formats), False),
        ("Skipped, not pictures", " \u00b7 ".join(named), True),
        ("Input", text.listed(_said(run, "inputs")), True),
    ]
    return [{"name": name, "text": value, "wide": wide} for name, value, wide in facts if value]


def _shares(counts: Sequence[tuple[tuple[str, str], int]]) -> list[tuple[str, str, int, float]]:
    """(class, stage, pictures, their share of the most frequent, 0..100) of each."""
    most = max((count for _, count in counts), default=1)
    return [(error, stage, count, round(100 * count / most, 1)) for (stage, error), count in counts]


def _charts(summary: Summary) -> list[plots.Chart]:
    if not any(count for _, count in summary.pictures_by_faces()):  # nothing was examined
        return []
    pictures = plots.labelled_chart("Faces a picture", "faces", "pictures", summary.pictures_by_faces())
    if not summary.faces:
        return [pictures]
    return [
        plots.labelled_chart("By height", "height, px", "faces", summary.faces_by_height()),
        plots.score_chart("By score", "score", "faces", summary.score_B.tolist()),
        pictures,
    ]


def _throughput(summary: Summary, run: Mapping[str, Any]) -> plots.Chart | None:
    throughput = throughput_of(summary.commits, text.seconds_of(_said(run, "finished_at")))
    return None if throughput is None else plots.throughput_chart(throughput)


def _said(run: Mapping[str, Any], key: str) -> Any:
    return run[key] if key in run else _mapping(run.get("settings")).get(key)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@cache
def template(name: str) -> jinja2.Template:
    """A page's template: text is escaped, and a name that nothing gives is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(grouped=text.grouped, px=text.px, shown=text.shown)
    return environment.get_template(name)


@cache
def style() -> str:
    """The style sheet of all pages."""
    return resources.files(__package__).joinpath("templates/report.css").read_text("utf-8")
