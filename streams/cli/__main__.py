"""`python -m streams.cli` is `resegment`."""

from streams.cli import main

if __name__ == "__main__":
    main()
