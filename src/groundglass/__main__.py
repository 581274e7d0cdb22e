"""`python -m groundglass` is the command line."""

from groundglass.cli import main

if __name__ == "__main__":
    main()
