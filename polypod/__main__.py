"""``python -m polypod``: the command."""

from actors.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
