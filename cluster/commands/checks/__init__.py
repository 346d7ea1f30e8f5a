"""What `clusterofone doctor` looks at: this machine, its folders, its network, and the scheduler."""
