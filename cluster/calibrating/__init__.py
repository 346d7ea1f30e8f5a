"""Calibrations from files to files: the one way that the command line and the data server both go."""
