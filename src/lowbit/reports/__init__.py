"""SHOW: terminal table, JSON, CSV, one HTML page."""
