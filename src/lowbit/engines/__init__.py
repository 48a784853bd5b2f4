"""A model file or its bytes enter; a session leaves that computes outputs from inputs.

One file per runtime, behind one small protocol.
"""

from lowbit.engines.session import (
    AUTO,
    ENGINES,
    Engine,
    Session,
    chosen_engines,
    engine_version,
    fed,
    installed_engines,
    open_session,
    remarks,
)

__all__ = [
    "AUTO",
    "ENGINES",
    "Engine",
    "Session",
    "chosen_engines",
    "engine_version",
    "fed",
    "installed_engines",
    "open_session",
    "remarks",
]
