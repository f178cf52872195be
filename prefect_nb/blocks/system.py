"""Blocks that everybody needs."""

import json
from typing import Any, Generic, TypeVar

from pydantic import Field, SecretStr, field_validator
from pydantic import Secret as PydanticSecret

from prefect_nb.blocks.core import Block

T = TypeVar("T")


class Secret(Block, Generic[T]):
    """A secret value: a text, or anything JSON can express. It is saved encrypted, and never shown.

    Attributes:
        value: what to keep secret.
    """

    value: SecretStr | PydanticSecret[T] = Field(default=..., description="A value that is kept encrypted.")

    @field_validator("value", mode="before")
    @classmethod
    def validate_value(cls, value: Any) -> Any:
        """A value of any kind as a secret one."""
        return value if hasattr(value, "get_secret_value") else PydanticSecret[Any](value)

    def get(self) -> Any:
        """The value; a text that is JSON, as what it says."""
        value = self.value.get_secret_value()
        try:
            return json.loads(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return value
