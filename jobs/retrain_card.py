"""What a person reads of a version: its card, and the last screen of a retraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from retrain_look import Sought
from tinyface_core.evaluate.promotion import table
from tinyface_core.model.spec import ModelSpec

CARRIED = "the network and its templates, levels, NMS, vote of boxes, heights of each level"


def card(name: str, spec: ModelSpec, lineage: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Markdown: where the version comes from, how it was judged, what was decided."""
    rows = _origin(spec, lineage)
    lines = [f"# {spec.name} {name}", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {_cell(told)} |" for what, told in rows]
    lines += ["", "## Judged", _judged(metrics), "", table(metrics["groups"]), ""]
    lines += [f"**{'Better by the rule' if metrics['promote'] else 'Not better by the rule'}**:"]
    lines += [f"- {reason}" for reason in metrics["reasons"]]
    apart = metrics["disagree"]
    told = f"{apart['faces']:,} faces in {apart['pictures']:,} pictures"
    return "\n".join([*lines, "", f"Above their default scores the two disagree on {told}.", ""])


def _origin(spec: ModelSpec, lineage: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it is made of."""
    window, base = lineage["window"], lineage["base"]
    pictures, faces = lineage["pictures"], lineage["faces"]
    budget = ", ".join(f"{amount:g} {what}" for what, amount in lineage["budget"].items() if amount is not None)
    refitted = spec.provenance.get("refitted") or {}
    learned = f"{pictures['learned']:,} pictures, {faces['learned']:,} faces"
    held_out = f"{pictures['held_out']:,} held out to choose the epoch by"
    rows = f"rows from {window['since'] or 'the first'} up to {window['until']}"
    return [
        ("made by", f"`{spec.provenance.get('command', lineage['made_by'])}`, tick {lineage['tick']}"),
        ("starts from", f"`{lineage['start_from']}`"),
        ("current then", f"{base['version']} (sha256 {base['model_hash'][:12]}...)"),
        ("learned from", f"{learned}; {held_out}; {rows}"),
        ("how", f"preset {lineage['preset']}, {budget}; best epoch at {spec.provenance.get('crops', '?')} crops"),
        ("as the current model has it", CARRIED),
        ("default score", f"{spec.defaults.score:g}: one false alarm a frozen picture"),
        *((part, told) for part, told in refitted.items()),
        ("code", f"tinyface {lineage['versions']['tinyface']}, commit {lineage['commit'] or 'not known'}"),
    ]


def _judged(metrics: Mapping[str, Any]) -> str:
    """What the table below it rests on."""
    frozen, samples = metrics["frozen"], metrics["bootstrap"]["samples"]
    settings = _listed(metrics["detected_with"])
    return (
        f"On {frozen['pictures']:,} frozen pictures with {frozen['faces']:,} valid faces; this command learned of "
        f"none; average precision at the same settings ({settings}). The interval is that of the difference in "
        f"{samples:,} bootstrap samples over pictures, the same for both models. The same pictures chose the default "
        "score and the advice in the file."
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _listed(settings: Mapping[str, Any]) -> str:
    shown = {name: " ".join(map(str, v)) if isinstance(v, list) else v for name, v in settings.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def show_plan(sought: Sought) -> None:
    """What a dry run tells."""
    job, budget, truth = sought.job, sought.run.budget, sought.frozen.truth
    long = f"{budget.hours:g} h" if budget.hours else f"{budget.crops:,} crops"
    enough = sought.pictures >= job.least_pictures
    rows = [
        ("tick", sought.tick),
        ("current", f"{sought.base.name}, a {sought.run.settings.spec.name}"),
        ("window", str(sought.window)),
        ("new", f"{sought.pictures:,} pictures, {len(sought.held_out):,} of them held out"),
        (
            "training",
            f"{long}, preset {job.training.preset}, from {sought.run.start_from}" if enough else _too_few(sought),
        ),
        (
            "frozen",
            f"{len(truth.names):,} pictures with {int(truth.valid_F.sum()):,} valid faces, twice through detection",
        ),
        (
            "promoted if",
            f"better by {job.margin:g}, the interval above 0, no height worse by more than {job.tolerance:g}",
        ),
    ]
    _print(rows)
    Console(highlight=False, markup=False).print("Nothing was written.")


def _too_few(sought: Sought) -> str:
    return f"none: fewer than --least-pictures {sought.job.least_pictures}"


def show_decision(decision: Mapping[str, Any], registry_uri: str) -> None:
    """The last screen."""
    version = decision.get("version")
    rows = [
        ("tick", decision["tick"]),
        ("decision", decision["decision"]),
        *(("", reason) for reason in decision["reasons"]),
        *([("version", f"{registry_uri}/versions/{version}")] if version else []),
        ("current then", decision["base"]),
    ]
    _print(rows)


def _print(rows: list[tuple[str, str]]) -> None:
    grid = Table.grid(padding=(0, 2))
    for name, text in rows:
        grid.add_row(name, text)
    Console(highlight=False, markup=False, soft_wrap=True).print(grid)
