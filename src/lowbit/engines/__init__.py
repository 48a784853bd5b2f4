"""GRAPH -> NUMBERS: one file a runtime, behind one small protocol."""

from lowbit.engines.session import ENGINES, Session, engine_version, installed_engines, open_session

__all__ = ["ENGINES", "Session", "engine_version", "installed_engines", "open_session"]
