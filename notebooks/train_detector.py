"""Train the built-in detector on pictures that lowbit draws, and write it as a float ONNX file.

    python notebooks/train_detector.py hands_detector.onnx

Needs the extra `train`. With the default numbers it takes one core of a processor a few minutes.
"""

import argparse

import torch

import lowbit
from lowbit.data.hands_in_pictures import hand_pictures
from lowbit.training.detector import as_model, train_detector


class Printed:
    """Prints what training tells."""

    def track(self, items, what, total=None):
        return iter(items)

    def note(self, text: str) -> None:
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="the ONNX file to write")
    parser.add_argument("--pictures", type=int, default=1600)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    detector = train_detector(hand_pictures("train", arguments.pictures), epochs=arguments.epochs, progress=Printed())
    lowbit.save(as_model(detector), arguments.output)


if __name__ == "__main__":
    main()
