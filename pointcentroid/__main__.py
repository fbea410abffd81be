"""`python -m pointcentroid`."""

from pointcentroid.cli.app import main

if __name__ == "__main__":
    main()
