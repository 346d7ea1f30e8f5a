"""The views of the page, one a file: widgets around the plain values of `cluster.web.models`."""
