"""Where the checkout is: processes of the bench run there."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
