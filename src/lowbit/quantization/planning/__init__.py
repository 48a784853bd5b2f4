"""A model and a recipe enter; a `Plan` leaves: what each tensor and node gets, and why.

Pure decision: no weight is changed and no data is read.
"""
