"""A float model and a recipe enter; codes for every tensor leave, with the plan that led to them.

`planning` decides, `solving` chooses the codes of one layer, `equalizing` rescales channels beforehand, `passes` run
the network over calibration data, `rate` searches for the smallest archive.
"""
