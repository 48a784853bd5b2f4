"""Calibration data enters and runs through the network; what each layer sees leaves, layer by layer.

Every step between plain codes and the file is here, with the measure by which it is kept or dropped.
"""
