"""The panels of the dashboard, row by row: what each asks Prometheus for, and what it is there to tell.

`@` stands for the chosen clusters. Names beyond `ray_tinyface_*` are Ray's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """queries: (PromQL, legend) each. unit: Grafana's name of it. width: of 24 columns."""

    title: str
    about: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    width: int = 8
    stacked: bool = False
    most: float | None = None


def _stat(title: str, about: str, unit: str, query: str) -> Panel:
    return Panel(title, about, unit, ((query, ""),), "stat", 4)


_AT_WORK = "ray_tinyface_pictures_total{@} and on (SessionName, WorkerId) ray_tinyface_run_info{@}"
_DUTY = f'sum(rate(ray_tinyface_stage_seconds_total{{@, stage="detect"}}{RATE})) / sum(ray_tinyface_detectors{{@}})'
_TASKS = 'clamp_min(sum by (State) (ray_tasks{@, State!~"FINISHED|FAILED"}), 0)'
_PICTURE_RATE = f"sum(rate(ray_tinyface_pictures_total{{@}}{RATE}))"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Runs": (
        _stat("Pictures/s", "Committed, of all runs.", "short", _PICTURE_RATE),
        _stat(
            "Done",
            "Of the pictures that the runs at work have to do, as far as they know.",
            "percentunit",
            f"sum({_AT_WORK}) / sum(ray_tinyface_expected_pictures{{@}})",
        ),
        _stat(
            "Time left",
            "At the present rate.",
            "s",
            f"clamp_min(sum(ray_tinyface_expected_pictures{{@}}) - sum({_AT_WORK}), 0) / ({_PICTURE_RATE} > 0)",
        ),
        _stat(
            "Duty",
            "Share of their time in which detectors compute.",
            "percentunit",
            _DUTY,
        ),
        _stat(
            "Error rows",
            "Of all pictures committed since the clusters started.",
            "percentunit",
            "(sum(ray_tinyface_errors_total{@}) or vector(0)) / sum(ray_tinyface_pictures_total{@})",
        ),
        _stat(
            "Since the last commit",
            "Of the run that waits longest.",
            "s",
            "time() - min(ray_tinyface_last_commit_timestamp_seconds{@})",
        ),
        Panel(
            "At work",
            "Each run that is at work: its id, as in its log and run.json, and what it runs with.",
            "short",
            (("ray_tinyface_run_info{@}", ""),),
            "table",
            16,
        ),
        Panel(
            "Ended",
            "Runs by exit code: 0 done, 1 stopped, 3 too many errors, 130 and 143 told to end.",
            "short",
            (("sum by (command, exit_code) (ray_tinyface_runs_total{@})", "{{command}} {{exit_code}}"),),
        ),
    ),
    "Commits": (
        Panel(
            "Pictures and faces",
            "Committed, a second.",
            "short",
            (
                (_PICTURE_RATE, "pictures"),
                (f"sum(rate(ray_tinyface_faces_total{{@}}{RATE}))", "faces"),
            ),
        ),
        Panel(
            "Errors by class and stage",
            "Error rows committed, a second.",
            "short",
            (
                (
                    f"sum by (error_class, error_stage) (rate(ray_tinyface_errors_total{{@}}{RATE}))",
                    "{{error_class}} ({{error_stage}})",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Units", "Committed, a second.", "short", ((f"sum(rate(ray_tinyface_units_total{{@}}{RATE}))", "units"),)
        ),
        Panel(
            "Time of a commit",
            "Both files of a unit, retries included; bounds are those of the histogram's buckets.",
            "s",
            tuple(
                (
                    f"histogram_quantile({share}, sum by (le) (rate(ray_tinyface_commit_seconds_bucket{{@}}{RATE})))",
                    name,
                )
                for share, name in ((0.5, "half"), (0.95, "95 %"), (0.99, "99 %"))
            ),
        ),
        Panel(
            "Store: tried again",
            "Requests a second that failed and were repeated, by what was done; of drivers and workers.",
            "short",
            ((f"sum by (action) (rate(ray_tinyface_store_retries_total{{@}}{RATE}))", "{{action}}"),),
            stacked=True,
        ),
        Panel(
            "Copies of redact.py",
            "Committed, a second.",
            "short",
            (
                (f"sum(rate(ray_tinyface_copies_total{{@}}{RATE}))", "copies"),
                (f"sum(rate(ray_tinyface_masked_faces_total{{@}}{RATE}))", "faces hidden"),
                (
                    f"sum by (error_class) (rate(ray_tinyface_copy_errors_total{{@}}{RATE}))",
                    "no copy: {{error_class}}",
                ),
            ),
        ),
    ),
    "Detectors": (
        Panel(
            "Duty",
            "Share of their time in which detectors compute. Low: they wait for pictures.",
            "percentunit",
            ((_DUTY, "all"),),
            most=1,
        ),
        Panel("Detectors", "Processes that hold one.", "short", (("sum(ray_tinyface_detectors{@})", "detectors"),)),
        Panel(
            "Processes at work, by stage",
            "Seconds of work in each second. What is close to the number of its processes is what limits.",
            "short",
            ((f"sum by (stage) (rate(ray_tinyface_stage_seconds_total{{@}}{RATE}))", "{{stage}}"),),
            stacked=True,
        ),
    ),
    "Ray": (
        Panel(
            "Waiting before each step",
            "Blocks in the queues of Ray Data.",
            "short",
            (("sum by (operator) (ray_data_num_external_inqueue_blocks{@})", "{{operator}}"),),
            stacked=True,
        ),
        Panel(
            "Object store by step",
            "What the steps of Ray Data hold there.",
            "bytes",
            (("sum by (operator) (ray_data_current_bytes{@})", "{{operator}}"),),
            stacked=True,
        ),
        Panel(
            "Object store",
            "All of it; what is spilled lies on disk, and costs time.",
            "bytes",
            (("sum by (Location) (ray_object_store_memory{@})", "{{Location}}"),),
            stacked=True,
        ),
        Panel("Tasks", "Not yet ended, by state.", "short", ((_TASKS, "{{State}}"),)),
        Panel("Actors", "By state.", "short", (('sum by (State) (ray_actors{@, Source="gcs"})', "{{State}}"),)),
        Panel(
            "Killed for want of memory",
            "Workers that Ray ended as a node ran out of it, in the last 10 minutes.",
            "short",
            (("sum by (Name) (increase(ray_memory_manager_worker_eviction_total{@}[10m]))", "{{Name}}"),),
        ),
    ),
    "Nodes": (
        Panel("CPU", "Of each node.", "percent", (("ray_node_cpu_utilization{@}", "{{instance}}"),), most=100),
        Panel(
            "Memory",
            "Used share of each node's.",
            "percentunit",
            (("ray_node_mem_used_host{@} / ray_node_mem_total_host{@}", "{{instance}}"),),
            most=1,
        ),
        Panel(
            "GPUs",
            "Of each one.",
            "percent",
            (("ray_node_gpus_utilization{@}", "{{instance}} {{GpuIndex}}"),),
            most=100,
        ),
        Panel(
            "Network",
            "Received by each node, a second; mostly pictures.",
            "Bps",
            (("ray_node_network_receive_speed{@}", "{{instance}}"),),
        ),
        Panel(
            "Disk",
            "Used share of each node's; spilled objects and logs lie there.",
            "percentunit",
            (("ray_node_disk_usage{@} / (ray_node_disk_usage{@} + ray_node_disk_free{@})", "{{instance}}"),),
            most=1,
        ),
        Panel("Nodes", "That tell of themselves.", "short", (("count(ray_node_mem_total_host{@})", "nodes"),)),
    ),
    "Training": (
        Panel(
            "Loss",
            "Of the first worker, a crop, since its latest report.",
            "short",
            (("sum by (SessionName, part) (ray_tinyface_train_loss{@})", "{{part}}"),),
        ),
        Panel(
            "Crops/s",
            "Of all workers together.",
            "short",
            ((f"sum(rate(ray_tinyface_train_crops_total{{@}}{RATE}))", "crops"),),
        ),
        Panel(
            "Waiting for crops",
            "Share of each worker's time. High: reading limits, not the network.",
            "percentunit",
            (("ray_tinyface_train_waiting_ratio{@}", "{{instance}} {{WorkerId}}"),),
            most=1,
        ),
        Panel(
            "Average precision",
            "On the fixed crops of --validate, at the end of each epoch.",
            "percentunit",
            (("max by (SessionName) (ray_tinyface_train_validation_ratio{@})", "validation"),),
            most=1,
        ),
    ),
}
