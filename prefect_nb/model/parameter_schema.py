"""The JSON schema of a function's parameters as an object with Prefect's attributes."""

from typing import Any, Self

from prefect_nb.model.parameters import parameter_schema
from prefect_nb.model.signatures import Signature


class ParameterSchema:
    """`properties` by name, `required` names, `definitions` of models; `title` and `type` are always the same."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema

    @classmethod
    def of(cls, signature: Signature) -> Self:
        """The schema of a function with this signature."""
        return cls(parameter_schema(signature))

    @property
    def title(self) -> str:
        """Always "Parameters"."""
        return str(self._schema.get("title", "Parameters"))

    @property
    def type(self) -> str:
        """Always "object"."""
        return "object"

    @property
    def properties(self) -> dict[str, Any]:
        """Each parameter's schema, with `position` and `default`."""
        return dict(self._schema.get("properties", {}))

    @property
    def required(self) -> list[str]:
        """Parameters without a default."""
        return list(self._schema.get("required", []))

    @property
    def definitions(self) -> dict[str, Any]:
        """Schemas that others refer to."""
        return dict(self._schema.get("definitions", {}))

    def model_dump(self, **_options: Any) -> dict[str, Any]:
        """All of it as a dict."""
        return {
            "title": self.title,
            "type": self.type,
            "properties": self.properties,
            "required": self.required,
            "definitions": self.definitions,
        }

    model_dump_for_openapi = model_dump
    dict = model_dump

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParameterSchema) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]
