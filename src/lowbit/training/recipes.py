"""The two ways to train, in plain sight.

`FINE_TUNING` is the study's: ImageNet weights, all but the top ten layers frozen (a layer is a convolution, a batch
norm or an activation, as in Keras, where the study was made; the new classifier is trained as well), frozen batch norms
in inference mode, Adam at 5e-5, early stopping on a validation split of the training images. `FROM_SCRATCH` needs no
weights: everything is trained, with AdamW under a one-cycle rate (Smith and Topin, "Super-Convergence", 2018).
"""

from dataclasses import dataclass

from lowbit.training.augmentation import STRONG, STUDY, Augmentation

IMAGENET = "imagenet"


@dataclass(frozen=True)
class TrainingRecipe:
    """Every choice of a training run.

    Args:
        weights: where training starts: "imagenet" (downloaded once and checked), a state-dict file, or None for random
            weights.
        epochs: maximum number of passes over the training images.
        learning_rate: constant, or the peak of the cycle.
        one_cycle: rise to the peak over the first quarter and fall to zero, instead of a constant rate.
        weight_decay: AdamW's; 0 makes it plain Adam.
        trained_layers: how many of the last layers are trained, besides the classifier; None trains everything.
        augmentation: how training images are varied.
        label_smoothing: share of the target that is spread evenly over all classes.
        patience: stop after this many epochs without a better validation loss; None never stops early.
        validation_share: share of each class held out for validation.
        varied_validation: also validate on one augmented copy of each image, the same in every epoch: film frames that
            resemble each other across the split would otherwise make every epoch look perfect.
        batch_size: images per step.
        growing: (share of the run, share of the image side) pairs: until that share of the run, train at that share of
            the image side. Early epochs learn shapes just as well from small images, in a fraction of the time.
        ramp: augmentation grows from none to full over this share of the run, so that learning can begin.
    """

    weights: str | None
    epochs: int
    learning_rate: float
    one_cycle: bool
    weight_decay: float
    trained_layers: int | None
    augmentation: Augmentation
    label_smoothing: float
    patience: int | None
    validation_share: float = 0.1
    varied_validation: bool = False
    batch_size: int = 64
    growing: tuple[tuple[float, float], ...] = ()
    ramp: float = 0.0


FINE_TUNING = TrainingRecipe(
    weights=IMAGENET,
    epochs=30, learning_rate=5e-5, one_cycle=False, weight_decay=0.0, trained_layers=10, augmentation=STUDY,
    label_smoothing=0.0, patience=5,
)  # fmt: skip
FROM_SCRATCH = TrainingRecipe(
    weights=None,
    epochs=30, learning_rate=1.5e-3, one_cycle=True, weight_decay=0.02, trained_layers=None, augmentation=STRONG,
    label_smoothing=0.05, patience=None, varied_validation=True, batch_size=32, growing=((0.5, 0.5), (0.8, 0.75)),
    ramp=0.3,
)  # fmt: skip
