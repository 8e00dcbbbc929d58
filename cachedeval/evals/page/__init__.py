"""A report as one static HTML file that needs no network, no server and no build."""
