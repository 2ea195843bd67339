"""Error messages of the kit: what was observed, and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

PLAIN_FILES = {".safetensors", ".json", ".jsonl", ".txt", ".model"}
"""Allowed files of a component: safetensors, JSON, and the text and SentencePiece files of tokenizers. No pickles."""


class ContractError(AssertionError):
    """A component violates its contract; the message says what to change."""


class Checked:
    """The component under test; every message begins with its name."""

    def __init__(self, component: type):
        self.name = component.__name__

    def fail(self, message: str) -> NoReturn:
        raise ContractError(f"{self.name}: {message}")

    def expect(self, condition: object, message: str) -> None:
        if not condition:
            self.fail(message)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Errors that the component raises pass through, with a note on what was called."""
        try:
            yield
        except ContractError:
            raise
        except Exception as error:
            error.add_note(f"genret.testing: {self.name} raised this while {what}")
            raise

    def tensor(self, value: Any, what: str, shape: Sequence[int | str], dtype: torch.dtype | None = None) -> Tensor:
        """`shape`: numbers are exact sizes, names any size. The value must be finite and on the CPU."""
        wanted = ", ".join(str(size) for size in shape)
        self.expect(isinstance(value, Tensor), f"{what} is a {type(value).__name__}; return a tensor ({wanted})")
        fits = value.ndim == len(shape) and all(
            isinstance(want, str) or want == have for want, have in zip(shape, value.shape, strict=True)
        )
        self.expect(fits, f"{what} has the shape {tuple(value.shape)}; return ({wanted})")
        if dtype is not None:
            self.expect(value.dtype == dtype, f"{what} is {value.dtype}; return {dtype}")
        self.expect(
            not value.is_floating_point() or bool(torch.isfinite(value).all()),
            f"{what} holds numbers that are not finite",
        )
        return value

    def on_cpu(self, value: Tensor, what: str) -> None:
        self.expect(value.device.type == "cpu", f"{what} lies on {value.device}; return it with .cpu()")

    def unit_rows(self, value: Tensor, what: str) -> None:
        lengths = value.float().norm(dim=-1)
        self.expect(
            bool(((lengths - 1).abs() < 1e-3).all()),
            f"{what} has rows of length {float(lengths.min()):.3g} to {float(lengths.max()):.3g}; scale them to 1 "
            "(torch.nn.functional.normalize)",
        )

    def plain_files(self, folder: Path) -> None:
        """Checks that `save` wrote only allowed files."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.expect(
                    path.suffix in PLAIN_FILES,
                    f"save() wrote {path.name}; write tensors as safetensors and the rest as JSON: other "
                    "formats may run code when they are read",
                )


def same(one: Tensor | None, other: Tensor | None, tolerance: float = 0.0) -> bool:
    if one is None or other is None:
        return one is other
    if one.shape != other.shape:
        return False
    if tolerance == 0.0:
        return torch.equal(one, other)
    return torch.allclose(one.float(), other.float(), atol=tolerance, rtol=tolerance)


def devices() -> list[torch.device]:
    return [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
