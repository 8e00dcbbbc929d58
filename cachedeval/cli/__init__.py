"""The command line: it only talks."""
