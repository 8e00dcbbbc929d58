"""`python -m cachedeval` is `cachedeval`."""

from cachedeval.cli.main import main

if __name__ == "__main__":
    main()
