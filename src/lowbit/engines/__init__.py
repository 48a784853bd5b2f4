"""GRAPH -> NUMBERS: one file a runtime, behind one small protocol."""

from lowbit.engines.session import (
    AUTO,
    ENGINES,
    Session,
    chosen_engines,
    engine_version,
    installed_engines,
    open_session,
)

__all__ = ["AUTO", "ENGINES", "Session", "chosen_engines", "engine_version", "installed_engines", "open_session"]
