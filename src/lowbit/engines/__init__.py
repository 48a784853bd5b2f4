"""GRAPH -> NUMBERS: one file a runtime."""
