"""The data server: raw series in, ranges of frames out."""
