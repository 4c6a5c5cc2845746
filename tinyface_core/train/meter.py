"""What a training says of itself between two reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from tinyface_core.train.loss import Loss


@dataclass(frozen=True)
class Report:
    """Means since the last report. crops: of all processes, hours: at work, since the run's first start.

    rate: the finest head's. waiting: share of this process's time in which it waited for crops.
    """

    step: int
    crops: int
    hours: float
    spent: float
    rate: float
    labels_loss: float
    boxes_loss: float
    gradient_norm: float
    positives_a_crop: float
    crops_a_second: float
    waiting: float

    def metrics(self) -> dict[str, float]:
        return {name: round(value, 6) for name, value in asdict(self).items()}


@dataclass
class Meter:
    """Adds up what happens between two reports; seconds, crops: where the run stood at the last one."""

    seconds: float
    crops: int
    steps: int = 0
    waited_s: float = 0.0
    _sums: list[float] = field(default_factory=lambda: [0.0] * 4)

    def add(self, loss: Loss, norm: float, positives_a_crop: float, waited_s: float) -> None:
        values = (float(loss.labels.detach()), float(loss.boxes.detach()), norm, positives_a_crop)
        self.steps += 1
        self.waited_s += waited_s
        self._sums = [total + value for total, value in zip(self._sums, values, strict=True)]

    def report(self, *, step: int, crops: int, seconds: float, spent: float, rate: float) -> Report:
        """The means, after which counting begins anew."""
        labels, boxes, norm, positives = (total / self.steps for total in self._sums)
        passed = max(seconds - self.seconds, 1e-9)
        report = Report(
            step=step,
            crops=crops,
            hours=seconds / 3600,
            spent=spent,
            rate=rate,
            labels_loss=labels,
            boxes_loss=boxes,
            gradient_norm=norm,
            positives_a_crop=positives,
            crops_a_second=(crops - self.crops) / passed,
            waiting=self.waited_s / passed,
        )
        self.seconds, self.crops, self.steps, self.waited_s, self._sums = seconds, crops, 0, 0.0, [0.0] * 4
        return report
