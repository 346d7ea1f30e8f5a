"""The worker: leases a range of frames, fetches it, localises it, hands in one result."""
