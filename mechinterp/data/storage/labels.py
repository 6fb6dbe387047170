"""What saved files hold, checked as it is read: labels of the types that their class declares, tensors of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from mechinterp.data.validation import Fault


def typed(kind: type, labels: Any) -> dict[str, Any]:
    """Labels from JSON, each as a dataclass declares the field of its name.

    Raises:
        ValueError: naming the first that is unknown or of another type.
    """
    if not isinstance(labels, dict):
        raise ValueError(f"its labels are a {type(labels).__name__}, not an object")
    hints, found = get_type_hints(kind), {}
    for name, value in labels.items():
        if name not in hints:
            raise ValueError(f"{name} is no label of it")
        try:
            found[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            fault = Fault.of(error)
            where = ".".join((name, *fault.path))
            raise ValueError(f"{where}: {fault.said}, got {fault.value!r:.40}") from error
    return found


def check_numbers(tensors: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` naming the first tensor that holds no floating-point numbers of at least 16 bits."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
            raise ValueError(f"{name} holds {str(tensor.dtype).removeprefix('torch.')}, no floating-point numbers")


def check_dimensions(tensors: Mapping[str, Tensor], dimensions: int) -> None:
    """Raise `ValueError` naming the first tensor that has not so many dimensions, or is empty."""
    for name, tensor in tensors.items():
        if tensor.dim() != dimensions or not tensor.numel():
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, where {dimensions} dimensions are wanted")
