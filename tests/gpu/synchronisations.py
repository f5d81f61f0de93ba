"""Where a computation makes the CPU wait for the GPU: operators whose result the CPU needs before it can go on.

They are recognised on any device, so that they can be listed without a GPU. On a GPU, torch's own count
(``torch.cuda.set_sync_debug_mode``) stands beside.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torchvision  # noqa: F401  registers its operators
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[2]
aten = torch.ops.aten
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2, aten.unique_dim}
WAITING |= {torch.ops.torchvision.nms}  # its last part runs on the CPU
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


def caller() -> str:
    """The innermost line of ours or of detectron2, and its function."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if "detectron2" in path.parts:
            name = str(Path(*path.parts[path.parts.index("detectron2") :]))
            return f"{name}:{frame.lineno} {frame.name}"
        if path.is_relative_to(ROOT / "pipeline_steps"):
            return f"{path.relative_to(ROOT)}:{frame.lineno} {frame.name}"
    return "elsewhere"


def _masks(arguments: Any) -> bool:
    """Whether an indexing operator has a boolean index: it has to count the true ones, unless it fills them with one
    value."""
    if len(arguments) > 2 and arguments[2].numel() == 1:
        return False
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in arguments[1])


class Synchronisations(TorchDispatchMode):
    """Context that counts waiting operators by operator and line.

    Attributes:
        found: (operator, line) -> times.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()

    def note(self, what: str) -> None:
        """Count one."""
        self.found[what, caller()] += 1

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = function._overloadpacket
        if packet in WAITING or (packet in INDEXING and _masks(args)):
            self.note(str(packet).removeprefix("aten."))
        output = function(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.device.type == "cpu":
            sources = [value for value in args if isinstance(value, Tensor) and value.device.type == "cuda"]
            if sources and packet is not aten._local_scalar_dense:
                self.note(f"{packet} to the CPU".removeprefix("aten."))
        return output


@contextmanager
def synchronisations() -> Iterator[Counter[tuple[str, str]]]:
    """Count the synchronisations of the block; ``tolist`` of a CPU tensor counts as that of a GPU's would."""
    mode = Synchronisations()
    original = Tensor.tolist

    def tolist(tensor: Tensor) -> Any:
        if tensor.numel():
            mode.note("tolist")
        return original(tensor)

    with patch.object(Tensor, "tolist", tolist), mode:
        yield mode.found


def counted_by_torch(step: Callable[[], Any]) -> int:
    """Synchronisations of ``step`` that torch itself sees on a GPU."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)


def listing(found: Counter[tuple[str, str]]) -> str:
    """One line each, the most frequent first."""
    return "\n".join(f"{times:4}  {what:24} {line}" for (what, line), times in found.most_common())
