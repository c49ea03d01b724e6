"""Every test of this folder may ask for the files."""

from config_kit import files  # noqa: F401 - a fixture
