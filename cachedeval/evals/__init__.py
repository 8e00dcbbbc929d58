"""Evaluations: dataset, sample, generation, judging and report, as steps of the engine."""
