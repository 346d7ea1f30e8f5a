"""The networked parts of clusterofone: scheduler, workers, data server and what they share."""
