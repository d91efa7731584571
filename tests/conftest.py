"""Settings shared by all tests."""

from hypothesis import settings

# The first call of a kernel compiles it, which no deadline fits; the same examples in every run.
settings.register_profile("pimloom", deadline=None, derandomize=True)
settings.load_profile("pimloom")
