"""Files are parsed in a process of their own, with limits: one that is broken or hostile ends that process, not the data server.

`parsers.Parsers` opens a series as `readers.registry.open_series` does; what it returns is a `SeriesReader` like any other.
"""
