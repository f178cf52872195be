"""Types for annotations of parameters and of blocks' fields."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, Secret, StrictBool, StrictFloat, StrictInt, StrictStr

SecretDict = Secret[dict[str, Any]]
"""A dict whose values are secret: never shown, saved encrypted."""

NonNegativeInteger = Annotated[int, Field(ge=0)]
PositiveInteger = Annotated[int, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
NonNegativeDuration = Annotated[timedelta, Field(ge=timedelta(0))]
PositiveDuration = Annotated[timedelta, Field(gt=timedelta(0))]
PositiveInterval = PositiveDuration
KeyValueLabels = dict[str, StrictBool | StrictInt | StrictFloat | str]
StrictVariableValue = StrictStr | StrictInt | StrictFloat | StrictBool | None | dict[str, Any] | list[Any]

__all__ = [
    "KeyValueLabels",
    "NonNegativeDuration",
    "NonNegativeFloat",
    "NonNegativeInteger",
    "PositiveDuration",
    "PositiveInteger",
    "PositiveInterval",
    "SecretDict",
    "StrictVariableValue",
]
