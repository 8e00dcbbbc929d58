"""The part of the evaluations that runs models with MLX; importing the package imports no mlx."""
