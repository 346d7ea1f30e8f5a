"""A real cluster on this machine, and everything done to it that a lab might."""
