"""A model and calibration images enter; statistics of its activations leave: ranges, histograms, moments.

Each is one streaming pass, whose memory does not grow with the number of images.
"""
