"""What the engines of the tests have in common."""

from groundglass.inference.engine import EngineCard


class MadeUpEngine:
    """Without weights; `run` is what makes it an engine."""

    card = EngineCard("made up", "f32", 1, "for tests")
