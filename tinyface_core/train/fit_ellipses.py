"""The regressor of ellipses: a linear map from the features that the heads see to five targets, by least squares.

Fitted offline, on detections of the model itself that match a face whose ellipse is known: their features are the mean
around the kept cell (model/cells.py), their targets those of detect/ellipse.py against their own box. Ten-fold
cross-validation over pictures chooses a ridge for each target and says how good the map is on pictures that it has not
seen, beside the best constant.
Only faces within MOST_TILT of upright count: cot of the angle grows without bound towards faces that lie, and few such
would outweigh all others. For the same reason an error of cot counts as the turn that it means.
Knows nothing of where the ellipses come from (fit_ellipses_truth.py). Paper: appendix B; METHOD, section 6.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from tinyface_core import boxes
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.ellipse import around, targets_of
from tinyface_core.detect.options import DetectOptions
from tinyface_core.detect.pyramid import levels_for
from tinyface_core.errors import InputError
from tinyface_core.model.cells import CellMeans
from tinyface_core.model.network import HeatMaps, HRNetwork
from tinyface_core.train.fit_ellipses_truth import Truth

log = logging.getLogger(__name__)

TARGETS = ("tx", "ty", "ta", "tb", "tth")
MOST_TILT = math.radians(60)
MATCH_IOU = 0.5
# Of the detector that samples are taken from: weak detections count, and some neighbours of a face's best cell.
SAMPLING = DetectOptions(min_score=0.2, nms_iou=0.7)
RIDGES = (1e-4, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)  # of the mean square of a feature, as all are scaled to the same
_COT = TARGETS.index("tth")
_LOG_EVERY = 100


@dataclass(frozen=True)
class Samples:
    """Detections whose ellipse is known. features_NC float32, targets_N5 float64, fold_N of their pictures, 0..9."""

    features_NC: NDArray[np.float32]
    targets_N5: NDArray[np.float64]
    fold_N: NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """The map of all samples, and the errors of maps that had not seen the picture.

    weight_5C, bias_5: float32, of the features as they are. ridge_5: chosen for each target. rms_5, constant_rms_5:
    root mean square error of the map and of the best constant, in the targets' units, tth as radians of the angle.
    angle_deg, constant_angle_deg: median error of the angle.
    """

    weight_5C: NDArray[np.float32]
    bias_5: NDArray[np.float32]
    ridge_5: tuple[float, ...]
    rms_5: NDArray[np.float64]
    constant_rms_5: NDArray[np.float64]
    angle_deg: float
    constant_angle_deg: float
    samples: int

    def figures(self) -> dict[str, object]:
        """For a log and the checkpoint: errors on pictures that were not seen, the constant's in brackets."""
        pairs = zip(TARGETS, self.rms_5, self.constant_rms_5, strict=True)
        errors: dict[str, object] = {name: f"{of_map:.3f} ({constant:.3f})" for name, of_map, constant in pairs}
        angle = f"{self.angle_deg:.1f} ({self.constant_angle_deg:.1f})"
        return {"samples": self.samples, "rms": errors, "median_angle_error_deg": angle, "ridges": list(self.ridge_5)}


def samples_of(detector: Detector, truths: Iterable[Truth]) -> Samples:
    """The detector's own detections that match an ellipse, with what it saw there.

    A detection matches the ellipse whose box around it overlaps most, from MATCH_IOU on. The detector finds the same
    boxes afterwards, but features in the place of ellipses.
    Raises:
        InputError: nothing matches.
    """
    _pass_features_on(detector.network)
    features, targets, folds = list[NDArray[np.float32]](), list[NDArray[np.float64]](), list[NDArray[np.int64]]()
    for number, truth in enumerate(truths, start=1):
        if number % _LOG_EVERY == 0:
            log.info("%d pictures, %d detections whose ellipse is known", number, sum(len(fold) for fold in folds))
        zooms = detector.zooms if truth.zoom is None else (truth.zoom,)
        levels = levels_for((truth.rgb_HW3.shape[0], truth.rgb_HW3.shape[1]), zooms, detector.spec.templates)
        with torch.inference_mode():
            found = detector.best(torch.from_numpy(truth.rgb_HW3).to(detector.runtime.device), levels)
        upright_F = np.abs(truth.ellipses.angle_K.astype(np.float64) - math.pi / 2) <= MOST_TILT
        known = truth.ellipses.at(upright_F)
        if not len(known.cx_K) or found.ellipse_K5 is None or not len(found.scores_K):
            continue
        boxes_K4 = found.boxes_K4.cpu()
        iou_KF = boxes.iou(boxes_K4.double(), torch.from_numpy(around(known))).numpy()
        matched_K = iou_KF.max(axis=1) >= MATCH_IOU
        features.append(found.ellipse_K5.cpu().numpy()[matched_K])
        targets.append(targets_of(boxes_K4.numpy()[matched_K], known.at(iou_KF.argmax(axis=1)[matched_K])))
        folds.append(np.full(matched_K.sum(), truth.fold))
    if not any(len(fold) for fold in folds):
        raise InputError("no detection matches a face whose ellipse is known: are these the annotation's pictures?")
    return Samples(np.concatenate(features), np.concatenate(targets), np.concatenate(folds))


def _pass_features_on(network: HRNetwork) -> None:
    """What is known around a cell are the features of all heads from here on."""
    seen: dict[int, Tensor] = {}

    def with_features(_: nn.Module, __: object, maps: HeatMaps) -> HeatMaps:
        features = network.on_finest([seen[stride][:1].float() for stride in network.strides])
        return replace(maps, ellipses=CellMeans(torch.cat(features, dim=1)[0]))

    channels = sum(network.trunk.channels[stride] for stride in network.strides)
    network.regress(torch.zeros(len(TARGETS), channels), torch.zeros(len(TARGETS)))  # tiles see as far as with one
    network.trunk.register_forward_hook(lambda _, __, features: seen.update(features))
    network.register_forward_hook(with_features)


def fit(samples: Samples) -> Fitted:
    """The map of all samples with the ridges that do best on folds left out. The same samples give the same.

    Raises:
        InputError: samples of fewer than two folds.
    """
    if len(np.unique(samples.fold_N)) < 2:
        raise InputError("matching detections in fewer than two folds of the pictures: give more pictures.")
    targets_N5, weight_N1 = samples.targets_N5, 1 / (1 + samples.targets_N5[:, _COT:] ** 2)  # d angle = sin^2 d cot
    mean_C, spread_C = samples.features_NC.mean(axis=0, dtype=np.float64), samples.features_NC.std(axis=0)
    spread_C = np.where(spread_C > 0, spread_C, 1).astype(np.float64)
    rows_ND = np.column_stack([(samples.features_NC - mean_C) / spread_C, np.ones(len(targets_N5))])
    gram_DD, moment_D5 = _sums(rows_ND, targets_N5, weight_N1)

    said_RN5, constant_N5 = np.zeros((len(RIDGES), *targets_N5.shape)), np.zeros_like(targets_N5)
    for fold in np.unique(samples.fold_N):
        out_N = samples.fold_N == fold
        gram_out_DD, moment_out_D5 = _sums(rows_ND[out_N], targets_N5[out_N], weight_N1[out_N])
        constant_N5[out_N] = np.average(targets_N5[~out_N], axis=0, weights=weight_N1[~out_N, 0] ** 2)
        for place, ridge in enumerate(RIDGES):
            map_D5 = _solved(gram_DD - gram_out_DD, moment_D5 - moment_out_D5, ridge * (~out_N).sum())
            said_RN5[place, out_N] = rows_ND[out_N] @ map_D5

    rms_R5 = np.sqrt((((said_RN5 - targets_N5) * weight_N1) ** 2).mean(axis=1))
    best_5 = rms_R5.argmin(axis=0)
    map_D5 = np.stack(
        [_solved(gram_DD, moment_D5, RIDGES[best] * len(rows_ND))[:, target] for target, best in enumerate(best_5)],
        axis=1,
    )
    weight_5C = map_D5[:-1].T / spread_C
    return Fitted(
        weight_5C.astype(np.float32),
        (map_D5[-1] - weight_5C @ mean_C).astype(np.float32),
        tuple(RIDGES[best] for best in best_5),
        rms_R5.min(axis=0),
        np.sqrt((((constant_N5 - targets_N5) * weight_N1) ** 2).mean(axis=0)),
        _median_turn_deg(said_RN5[best_5[_COT], :, _COT], targets_N5[:, _COT]),
        _median_turn_deg(constant_N5[:, _COT], targets_N5[:, _COT]),
        len(rows_ND),
    )


def _sums(
    rows_ND: NDArray[np.float64], targets_N5: NDArray[np.float64], weight_N1: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the normal equations need of samples, (D, D) and (D, 5): errors count by the square of their weight."""
    heavy_ND = rows_ND * weight_N1
    return heavy_ND.T @ heavy_ND, heavy_ND.T @ (targets_N5 * weight_N1)


def _solved(gram_DD: NDArray[np.float64], moment_D5: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """The map (D, 5); its last row, the constants, bears no ridge."""
    gram_DD = gram_DD.copy()
    gram_DD.flat[: -1 : len(gram_DD) + 1] += ridge
    return np.asarray(cho_solve(cho_factor(gram_DD, overwrite_a=True, check_finite=False), moment_D5))


def _median_turn_deg(one_N: NDArray[np.float64], other_N: NDArray[np.float64]) -> float:
    """Between the angles of two cotangents; neither is past 0 or pi, so the way between them is the short one."""
    return float(np.degrees(np.median(np.abs(np.arctan2(1, one_N) - np.arctan2(1, other_N)))))
