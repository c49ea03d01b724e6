"""What is said and kept: data only, on msgspec and nothing of ours."""

__polypod__ = "polypod"
