"""genret: generative text-to-image retrieval.

Imports for programs and plugin authors. Names are imported on first use, so that `import genret` alone stays fast. They
are listed in `__init__.pyi`; docs/plugins.md defines what "public" means.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("genret")
    return _imported(name)
