"""The cluster simulated from a seed: its real scheduler and workers on a virtual clock, network and disk."""
