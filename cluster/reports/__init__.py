"""Pictures that show what a calibration is worth; the only place that loads matplotlib."""
