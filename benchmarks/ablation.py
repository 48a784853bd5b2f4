"""What each step between plan and codes brings by itself: the rows of "What each step brings", printed.

python benchmarks/ablation.py --data ../shared/data [--model resnet20]
"""

import argparse
from pathlib import Path

import numpy as np
from accuracy import open_subject

import lowbit
from lowbit.calibration.divergence import answers, mean_kl
from lowbit.data.images import Images
from lowbit.quantization.recipes import parse_recipe

INTEGER = ((), ("exact-input",), ("exact-input", "equalization"), ("exact-input", "bias"))
INTEGER += (("exact-input", "equalization", "bias"), ("exact-input", "equalization", "rounding"))
WEIGHTS = ((), ("bias",), ("rounding",), ("equalization", "rounding"))
COLUMNS = (("int8", "channel", INTEGER), ("int8", "tensor", INTEGER), ("linear3", "channel", WEIGHTS))
COLUMNS += (("cluster3", "tensor", WEIGHTS),)


def labels(images: Images) -> np.ndarray:
    """The class of each image."""
    return np.concatenate([np.asarray(part.labels) for part in images.batches(64)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--model", default="resnet20")
    arguments = parser.parse_args()
    subject = open_subject(arguments.model, arguments.data, calibration=250, test=None)
    truth = labels(subject.test)
    reference = answers(subject.model.to_bytes(), subject.model, subject.test, limit=subject.test.count)
    right = np.mean(reference.argmax(axis=1) == truth)
    for name, per, choices in COLUMNS:
        for steps in choices:
            recipe = parse_recipe(name, per=per)
            quantized = lowbit.quantize(subject.model, recipe, calibration=subject.calibration, steps=steps)
            found = answers(quantized.to_bytes(), subject.model, subject.test, limit=subject.test.count)
            lost = 100 * (right - np.mean(found.argmax(axis=1) == truth))
            dropped = ", ".join(step.name for step in quantized.steps if not step.kept)
            print(
                f"| {name} per {per} | {', '.join(steps) or 'none'} | {mean_kl(reference, found):.2g} | {lost:+.2f} "
                f"| {dropped} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
