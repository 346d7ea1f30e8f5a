"""The commands of `clusterofone`: they read arguments, environment and clock, so that nothing else has to."""
