"""Property tests of answers have no deadline: a loaded machine is no failure."""

from hypothesis import settings

settings.register_profile("answers", deadline=None)
settings.load_profile("answers")
