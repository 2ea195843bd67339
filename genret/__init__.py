"""genret: generative text-to-image retrieval.

Imports for programs and plugin authors. Names are imported on first use, so that `import genret` alone stays fast. They
are listed in `__init__.pyi`; docs/plugins.md defines what "public" means.
"""

from __future__ import annotations

import os
from typing import Any

import lazy_loader

_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""Torch's waiting threads sleep, which counts where other programs run beside it. To be set before torch is loaded."""
os.environ.update({} if os.environ.keys() & _WAITING.keys() else _WAITING)  # what the user sets is left alone

_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("genret")
    return _imported(name)
