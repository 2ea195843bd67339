"""Finds the parameters of a tower's last n blocks, for any architecture and any naming.

Names are not used: the tower runs once on one example, with the gradient cut before these blocks. The parameters that
still get a gradient are those to train.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from genret.components.encoders.towers import ImageTower, TextTower
from genret.errors import GenretError


def last_parameters(tower: ImageTower | TextTower, last_layers: int | None) -> dict[str, nn.Parameter]:
    """The parameters, by name, of the last `last_layers` blocks and of the modules after them (norms, projections).

    None: all parameters that the tower's vectors depend on. A tower with fewer blocks gives all blocks, without the
    modules before them (embeddings). Blocks are a transformer's layers or a convolutional net's stages.
    """
    module: nn.Module = tower.module
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.is_floating_point()}
    blocks: list[nn.Module] = []
    if last_layers is not None:
        blocks = _blocks_in_order(module, lambda: _vector(tower))
        if not blocks:
            raise GenretError(f"'{tower.config.model}' is not made of blocks; set finetune.last_layers to null")
        blocks = blocks[: max(0, len(blocks) - last_layers) + 1] if last_layers else blocks
    try:
        for parameter in named.values():
            parameter.requires_grad_(True)
        with _layout(tower), _cut_off(blocks, inclusive=last_layers == 0):
            gradients = torch.autograd.grad(_vector(tower).sum(), list(named.values()), allow_unused=True)
    finally:
        for parameter in named.values():
            parameter.requires_grad_(False)
    reached = zip(named.items(), gradients, strict=True)
    return {name: parameter for (name, parameter), gradient in reached if gradient is not None}


def _layout(tower: ImageTower | TextTower) -> AbstractContextManager[None]:
    return tower.layout_for_training() if isinstance(tower, ImageTower) else nullcontext()


def _vector(tower: ImageTower | TextTower) -> Tensor:
    if isinstance(tower, TextTower):
        return tower.forward(["a dog"])
    side = tower.preprocess.size
    return tower.forward(tower.inputs(torch.full((1, 3, side, side), 0.5)))


def _blocks_in_order(module: nn.Module, forward: Callable[[], Any]) -> list[nn.Module]:
    """The blocks in the order in which `forward` calls them."""
    order: list[nn.Module] = []
    handles: list[RemovableHandle] = []
    for block in _blocks(module):
        handles.append(block.register_forward_pre_hook(lambda called, _: order.append(called)))
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order))  # some nets call a block several times


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The model's lists of blocks or, if it has none, sibling modules of one class."""
    return list(_alike(module, lists_only=True)) or list(_alike(module, lists_only=False))


def _alike(module: nn.Module, lists_only: bool) -> Iterator[nn.Module]:
    """The members of the outermost groups of sibling composite modules of one class."""
    members = [member for member in module.children() if any(member.children())]
    classes = Counter(type(member) for member in members)
    if isinstance(module, nn.ModuleList | nn.Sequential) and len(classes) == 1 and lists_only:
        if len(members) == len(list(module.children())):
            yield from members
            return
    elif not lists_only and classes and (usual := classes.most_common(1)[0])[1] > 1:
        yield from (member for member in members if type(member) is usual[0])
        return
    for member in members:
        yield from _alike(member, lists_only)


@contextmanager
def _cut_off(blocks: list[nn.Module], inclusive: bool) -> Iterator[None]:
    """Detaches the inputs and outputs of `blocks`, except that the last one's own parameters keep their gradient.

    `inclusive`: the last one's do not.
    """
    handles: list[RemovableHandle] = []
    for block in blocks:
        handles.append(
            block.register_forward_pre_hook(
                lambda _, args, kwargs: (_detached(args), _detached(kwargs)), with_kwargs=True
            )
        )
    for block in blocks if inclusive else blocks[:-1]:
        handles.append(block.register_forward_hook(lambda _, __, output: _detached(output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: _detached(item) for key, item in value.items()}
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return type(value)(_detached(item) for item in value)
    return value
