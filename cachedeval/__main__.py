"""`python -m cachedeval` is `cachedeval`."""

from cachedeval.cli.main import console

if __name__ == "__main__":
    console()
