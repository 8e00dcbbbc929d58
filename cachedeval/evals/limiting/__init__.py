"""Staying within a service's limits: requests and tokens a minute, and calls at once."""
