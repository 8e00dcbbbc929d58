"""The same pipeline on others' caches, each in the environment that `requirements.txt` pins."""
