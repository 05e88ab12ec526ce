"""Guard models as judges."""
