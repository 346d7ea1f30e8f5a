"""The scheduler: cuts jobs into tasks, leases them, keeps exactly one result of each."""
