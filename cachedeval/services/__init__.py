"""Talking to a remote model service: endpoints, clients, errors, retries, limits.

It knows neither judges nor evaluations, and imports only the engine.
"""
