"""A real cluster that is used for a long time, and whether anything of it keeps growing."""
