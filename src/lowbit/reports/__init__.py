"""SHOW: a terminal table, JSON and CSV, and one self-contained HTML page, all from the same plain `Comparison`."""
