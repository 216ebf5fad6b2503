"""Calibration text and the one walk that collects what methods need to know of the data."""
