"""IMAGES AND LABELS: folders, .npz, iterables, the built-in set."""
