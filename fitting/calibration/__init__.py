"""From measurements of beads, markers and the dark to what fits need: each module one calibration, pure, without files."""
