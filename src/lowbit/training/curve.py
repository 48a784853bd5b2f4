"""The learning curve as a picture: loss and accuracy by epoch, training and validation, the kept epoch marked."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = {"training": "#3d6fb6", "validation": "#d0632b"}


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave; accuracies from 0 to 1, losses are cross-entropy in nats."""

    epoch: int
    learning_rate: float
    training_loss: float
    training_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


def draw_curve(history: Sequence[Epoch], *, best: int, title: str) -> bytes:
    """The history as a PNG file; `best` is the number of the epoch whose weights were kept."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8.0, 3.2), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        epochs = [row.epoch for row in history]
        for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            factor = 100.0 if what == "accuracy" else 1.0
            for part, color in COLORS.items():
                values = [factor * getattr(row, f"{part}_{what}") for row in history]
                axes.plot(epochs, values, color=color, label=part, marker=".", markersize=4, linewidth=1.2)
            axes.axvline(best, color="#888888", linewidth=0.8, linestyle=":", label=f"kept: epoch {best}")
            axes.set_xlabel("epoch")
            axes.set_ylabel("cross-entropy" if what == "loss" else "accuracy, %")
            axes.grid(alpha=0.25)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            axes.legend(frameon=False)
        figure.suptitle(title)
        buffer = io.BytesIO()
        canvas.print_png(buffer, metadata={"Software": "lowbit"})  # type: ignore[no-untyped-call]
    return buffer.getvalue()
