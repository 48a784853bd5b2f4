"""A network and the ranges of its channels enter; the same function leaves, with channels that are easier to round."""
