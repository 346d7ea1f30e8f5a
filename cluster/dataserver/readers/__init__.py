"""Readers of the formats in which series come. Each is one `SeriesReader`; `registry.open_series` picks it."""
