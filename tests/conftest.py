"""What all tests share: properties are never judged by the clock."""

from hypothesis import settings

settings.register_profile("polypod", deadline=None, max_examples=60, print_blob=True)
settings.load_profile("polypod")
