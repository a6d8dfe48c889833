"""`python -m selftrain`: the same as `selftrain`."""

from selftrain.cli import main

if __name__ == "__main__":
    main()
