"""Judging: what a judge is asked, how it is asked over HTTP, and how its reply is read."""
