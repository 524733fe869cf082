"""``python -m seatrial``."""

from .cli import main

if __name__ == "__main__":
    main()
