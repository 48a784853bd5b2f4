"""A model file or its bytes enter; a session leaves that computes outputs from inputs.

One file per runtime, behind one small protocol. Nothing is sent: what runtimes tell their makers is turned off here,
since this is read before any of them (docs/security.md).
"""

import os
import sys
from types import ModuleType
from typing import cast

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

# ONNX Runtime reads it when it is imported; else it looks up the host of its telemetry and writes a device's id.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Importing OpenVINO sends an event, unless the package that does so is missing.
sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
