"""What plugins' code raises, and a value that it returned, said in one sentence."""

from __future__ import annotations

from typing import Any, NoReturn

from genret.errors import GenretError, one_line


def raise_named(error: Exception, who: str, name: str) -> NoReturn:
    """Errors in genret's words, and those that a full disk or memory causes, are understood as they are."""
    if isinstance(error, GenretError | OSError | MemoryError) or type(error).__name__ == "OutOfMemoryError":
        raise error
    failed = f"{name}() failed with {type(error).__name__}: {one_line(error)}"
    raise GenretError(f"{who}: {failed} (a fault of its own, see --debug)") from error


def shown(value: Any) -> str:
    """A value's type, and what can be said of its shape."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"a {type(value).__name__} {tuple(value.shape)} of {value.dtype}"
    if hasattr(value, "_asdict"):
        return f"{type(value).__name__}({', '.join(f'{key}: {shown(part)}' for key, part in value._asdict().items())})"
    return f"a {type(value).__name__}"


def loss_term(name: str, loss: Any, batch: Any) -> Any:
    """The loss of a batch, not yet weighted: a scalar."""
    try:
        found = loss(batch)
    except Exception as error:
        if type(loss).__module__.startswith("genret."):
            raise
        raise_named(error, f"the loss '{name}'", "__call__")
    if not hasattr(found, "backward") or found.ndim != 0:
        raise GenretError(f"the loss '{name}' returned {shown(found)}; it has to return a tensor of shape ()")
    return found
