"""The root of the checkout, where the processes of the bench run."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
