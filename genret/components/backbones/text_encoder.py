"""Pretrained text encoders for a backbone's queries: MiniLM, BERT or any other model of transformers.

They give one state per token. A frozen encoder depends on the text alone, so the states of the training captions are
computed once and looked up in later epochs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from genret.errors import GenretError
from genret.kit.device import autocast
from genret.toolbox.plain import Bert
from genret.toolbox.weights import check_loaded, has_weights, loading, reads

MOST_BYTES = 1 << 30
"""Memory for cached states: 100,000 captions of 13 pieces at MiniLM's width."""
BATCH = 64
TOKENIZING = Lock()
"""Tokenizers of transformers keep the options of a call and fail where another one sets them meanwhile."""


class States(NamedTuple):
    """B texts of at most S word pieces."""

    states: Tensor
    """(B, S, W), 0 at pads"""
    mask: Tensor
    """(B, S) True at real pieces"""


class _Memory(NamedTuple):
    """The states of some texts, concatenated."""

    place: dict[str, int]
    starts: Tensor
    lengths: Tensor
    flat: Tensor
    """(P, W) bfloat16"""


class TextEncoder:
    """Encodes texts; if `trainable`, the backbone trains `model` and moves it between devices."""

    def __init__(self, folder: Path, max_tokens: int, trainable: bool = False):
        has_weights(folder)
        local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        with loading(f"the text encoder in {folder}"):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
            settings = AutoConfig.from_pretrained(folder, **local)
            self.model: Any = (None if trainable else Bert.opened(settings, folder)) or _opened(settings, folder)
        width = getattr(settings, "hidden_size", None)
        if not isinstance(width, int):
            raise GenretError(f"{folder} holds a {settings.model_type} model, which is no text encoder")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.width = width
        self.max_tokens = min(max_tokens, self.tokenizer.model_max_length)
        self.trainable = trainable
        self.model.eval().requires_grad_(trainable)
        self._wanted: list[str] = []
        self._memory: _Memory | None = None

    def remember(self, texts: Iterable[str]) -> None:
        """Caches the states of these texts when one of them is first encoded; if not all fit, those of the shortest.

        All are computed at once, in a fixed order, so that a resumed training gets the same bits.
        """
        if not self.trainable:
            self._wanted = sorted(set(texts), key=lambda text: (len(text), text))

    def __call__(self, texts: Sequence[str], device: torch.device) -> States:
        """B texts → their states on `device`; longer texts are truncated."""
        if self.trainable:
            return self._run(self._pieces(texts), device)
        if self.model.device != device:
            self.model.to(device)
            self._memory = None
        if self._memory is None:
            self._memory = self._filled(device)
        memory = self._memory
        known = [row for row, text in enumerate(texts) if text in memory.place]
        fresh = [row for row, text in enumerate(texts) if text not in memory.place]
        places = torch.tensor([memory.place[texts[row]] for row in known], dtype=torch.int64, device=device)
        lengths = torch.zeros(len(texts), dtype=torch.int64, device=device)
        lengths[known] = memory.lengths[places]
        computed = self._frozen(self._pieces([texts[row] for row in fresh]), device) if fresh else None
        if computed is not None:
            lengths[fresh] = computed.mask.sum(1)
        column = torch.arange(int(lengths.max()), device=device)
        mask = column < lengths[:, None]
        states = torch.zeros(*mask.shape, self.width, dtype=torch.bfloat16, device=device)
        states[known] = memory.flat[(memory.starts[places, None] + column).clamp_max(len(memory.flat) - 1)]
        if computed is not None:
            states[fresh, : computed.states.shape[1]] = computed.states
        return States(states.float() * mask[:, :, None], mask)

    def reads(self, text: str) -> bool:
        return reads(self.tokenizer, text)

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        with TOKENIZING:
            found = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)
        rows: list[list[int]] = found["input_ids"]
        return rows

    def _run(self, pieces: Sequence[Sequence[int]], device: torch.device) -> States:
        rows = [torch.tensor(row) for row in pieces]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        ids, mask = ids.to(device), mask.to(device)
        return States(self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask)

    def _frozen(self, pieces: Sequence[Sequence[int]], device: torch.device) -> States:
        """bfloat16, cached or not, so that search and training use the same states."""
        with torch.no_grad(), autocast(device, "auto"):
            states, mask = self._run(pieces, device)
        return States(states.bfloat16(), mask)

    def _filled(self, device: torch.device) -> _Memory:
        pieces = self._pieces(self._wanted) if self._wanted else []
        lengths = torch.tensor([len(row) for row in pieces], dtype=torch.int64)
        ends = lengths.cumsum(0)
        count = int((ends * self.width * 2 <= MOST_BYTES).sum())
        flat = torch.zeros(int(ends[count - 1]) if count else 1, self.width, dtype=torch.bfloat16, device=device)
        # texts of similar length together, to avoid padding
        order = sorted(range(count), key=lambda row: len(pieces[row]))
        for start in range(0, count, BATCH):
            rows = order[start : start + BATCH]
            states, mask = self._frozen([pieces[row] for row in rows], device)
            for row, state, real in zip(rows, states, mask, strict=True):
                flat[ends[row] - lengths[row] : ends[row]] = state[real]
        place = {text: row for row, text in enumerate(self._wanted[:count])}
        return _Memory(place, (ends - lengths)[:count].to(device), lengths[:count].to(device), flat)


class TextEncoders:
    """Reads a text by several encoders: all states of the first, then those of the next, each in columns of its own.

    For E encoders of widths W₁ … W_E: states (B, S₁ + … + S_E, W₁ + … + W_E), 0 in the columns of the others. So one
    linear map of the states is one of each encoder's.
    """

    def __init__(self, folders: Sequence[Path], max_tokens: int, trainable: bool = False):
        self.parts = [TextEncoder(folder, max_tokens, trainable) for folder in folders]
        self.width = sum(part.width for part in self.parts)
        self.trainable = trainable
        self.model = nn.ModuleList(part.model for part in self.parts)

    def reads(self, text: str) -> bool:
        return any(part.reads(text) for part in self.parts)

    def remember(self, texts: Iterable[str]) -> None:
        texts = list(texts)
        for part in self.parts:
            part.remember(texts)

    def __call__(self, texts: Sequence[str], device: torch.device) -> States:
        if len(self.parts) == 1:
            return self.parts[0](texts, device)
        found, before, placed = [part(texts, device) for part in self.parts], 0, []
        for states, _ in found:
            width = states.shape[2]
            # of one size, whatever the models' own scales are
            placed.append(F.pad(F.layer_norm(states, (width,)), (before, self.width - before - width)))
            before += width
        mask = torch.cat([mask for _, mask in found], dim=1)
        return States(torch.cat(placed, dim=1) * mask[:, :, None], mask)

    def save(self, folder: Path) -> None:
        """Into `folder`/encoder, `folder`/encoder-2 and so on, which `saved` finds again."""
        for part, place in zip(self.parts, _places(folder), strict=False):
            part.save(place)

    @staticmethod
    def saved(folder: Path) -> list[Path]:
        return list(itertools.takewhile(Path.is_dir, _places(folder)))


def _places(folder: Path) -> Iterator[Path]:
    yield folder / "encoder"
    yield from (folder / f"encoder-{number}" for number in itertools.count(2))


def _opened(settings: Any, folder: Path) -> Any:
    """Any encoder of transformers, whose import takes seconds."""
    from transformers import AutoModel, AutoModelForTextEncoding

    kind: Any = AutoModelForTextEncoding if settings.is_encoder_decoder else AutoModel
    model, report = kind.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, trust_remote_code=False,
        local_files_only=True,
    )  # fmt: skip
    check_loaded(model, report, folder, ["pooler."])
    return model
