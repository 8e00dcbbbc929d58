"""The command line: it parses options and formats results; the library does the work."""
