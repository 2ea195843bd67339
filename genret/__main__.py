"""`python -m genret` is the same program as `genret`."""

from genret.cli import main

if __name__ == "__main__":
    main()
