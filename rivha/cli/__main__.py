"""python -m rivha.cli: rivhactl."""

from rivha.cli import main

if __name__ == "__main__":
    main()
