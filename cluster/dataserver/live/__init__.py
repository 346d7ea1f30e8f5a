"""Series that are acquired through this server: a Zarr v3 folder that grows by one chunk file at a time."""
