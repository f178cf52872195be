"""`Block`: a pydantic model that is saved by type and name, its secrets encrypted.

A type is found by its slug among the classes that are defined in this process and those of this package, never by
anything that the database says.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
import uuid
import warnings
from abc import ABC
from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar, Self, TypeGuard
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticSerializationError, to_jsonable_python

from prefect_nb.execution import block_documents as documents
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.duality import dual
from prefect_nb.interfaces import BlockDocument, BlockType
from prefect_nb.model import redaction

_NAME = re.compile(r"[a-z0-9-]+")
_OURS = {
    "local-file-system": "prefect_nb.filesystems",
    "remote-file-system": "prefect_nb.filesystems",
    "secret": "prefect_nb.blocks.system",
}
"""Where this package's own types are, so that they can be loaded before they were imported."""

types_by_slug: dict[str, type[Block]] = {}
"""The classes defined in this process; of two with the same slug, the later."""


class UnknownBlockType(Exception):
    """No class of that slug was defined or imported."""


class BlockNotSavedError(RuntimeError):
    """Something was asked of a block that only a saved one has."""


class InvalidBlockRegistration(Exception):
    """`Block` itself, or what is no block, was to be registered."""


def _describe_schema(schema: dict[str, Any], model: type[Any]) -> None:
    for key in ("description", "additionalProperties"):
        schema.pop(key, None)
    schema["block_type_slug"] = model.get_block_type_slug()
    schema["block_schema_references"] = {}
    schema["secret_fields"] = [
        f"{name}{tail}" for name, field in model.model_fields.items() for tail in _secret_paths(field.annotation)
    ]
    for position, described in enumerate(schema.get("properties", {}).values()):
        described["position"] = position


class Block(BaseModel, ABC):
    """Configuration with a name: define fields, save an object, load it anywhere with this home.

    class Warehouse(Block):
        url: str
        password: SecretStr

    Warehouse(url="db.example", password="...").save("main")
    Warehouse.load("main")
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_describe_schema)

    _block_type_name: ClassVar[str | None] = None
    _block_type_slug: ClassVar[str | None] = None
    _logo_url: ClassVar[Any] = None
    _documentation_url: ClassVar[Any] = None
    _description: ClassVar[str | None] = None
    _code_example: ClassVar[str | None] = None
    _block_type_id: ClassVar[UUID | None] = None
    _block_schema_id: ClassVar[UUID | None] = None
    _block_schema_capabilities: ClassVar[list[str] | None] = None
    _block_schema_version: ClassVar[str | None] = None

    _block_document_id: UUID | None = PrivateAttr(None)
    _block_document_name: str | None = PrivateAttr(None)
    _is_anonymous: bool | None = PrivateAttr(None)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.block_initialization()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.__pydantic_generic_metadata__["origin"]:
            types_by_slug[cls.get_block_type_slug()] = cls

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return ((name, value) for name, value in super().__repr_args__() if not (name or "").startswith("_"))

    def __str__(self) -> str:
        return repr(self)

    def block_initialization(self) -> None:
        """Called at the end of `__init__`, for a subclass to prepare what is not a field."""

    @model_validator(mode="wrap")
    @classmethod
    def _follow_reference(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """A saved block may be given by `{"$ref": its id}`, as a parameter from outside the process is."""
        if isinstance(values, dict) and list(values) == ["$ref"]:
            values = _referred(cls, values["$ref"], validate=True)
        return handler(values)

    @model_validator(mode="before")
    @classmethod
    def _check_type(cls, values: Any) -> Any:
        """What was dumped names its type; it must be this one."""
        if isinstance(values, dict) and "block_type_slug" in values:
            values = dict(values)
            slug = values.pop("block_type_slug")
            if slug != cls.get_block_type_slug():
                raise ValueError(
                    f"Invalid input: expected block_type_slug {cls.get_block_type_slug()!r}, got {slug!r}. "
                    "Please ensure you're passing the correct block type."
                )
        return values

    @model_serializer(mode="wrap")
    def _with_type(self, handler: Any, info: Any) -> Any:
        data = handler(self)
        if isinstance(data, dict):
            if (info.context or {}).get("include_secrets"):
                data.update(
                    {name: _revealed(getattr(self, name)) for name in data if _has_secrets(getattr(self, name))}
                )
            data["block_type_slug"] = self.get_block_type_slug()
        return data

    # What kind of block

    @classmethod
    def get_block_type_name(cls) -> str:
        """The type's name: `_block_type_name`, or the class's."""
        return cls._block_type_name or _generic(cls).__name__

    @classmethod
    def get_block_type_slug(cls) -> str:
        """The type's name in lower case with dashes."""
        return slugify(cls._block_type_slug or cls.get_block_type_name())

    @classmethod
    def get_description(cls) -> str | None:
        """`_description`, or what the docstring says before its sections."""
        if cls._description is not None:
            return cls._description
        text = inspect.cleandoc(cls.__doc__) if cls.__doc__ else ""
        return re.split(r"\n\s*(?:Attributes|Args|Example|Examples):", text)[0].strip() or None

    @classmethod
    def get_code_example(cls) -> str | None:
        """`_code_example`, or how to load one."""
        if cls._code_example is not None:
            return inspect.cleandoc(cls._code_example)
        name = _generic(cls).__name__
        variable = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        return f'```python\nfrom {cls.__module__} import {name}\n\n{variable}_block = {name}.load("BLOCK_NAME")\n```'

    @classmethod
    def get_block_capabilities(cls) -> frozenset[str]:
        """What the class and its bases say in `_block_schema_capabilities`."""
        bases = (base.__dict__.get("_block_schema_capabilities") or [] for base in cls.__mro__)
        return frozenset(capability for listed in bases for capability in listed)

    @classmethod
    def get_block_schema_version(cls) -> str:
        """`_block_schema_version`, or "non-versioned"."""
        return cls._block_schema_version or "non-versioned"

    @staticmethod
    def is_block_class(block: Any) -> TypeGuard[type[Block]]:
        """Whether it is a class of blocks."""
        return inspect.isclass(block) and issubclass(block, Block)

    @staticmethod
    def annotation_refers_to_block_class(annotation: Any) -> bool:
        """Whether it is a class of blocks, or a union with one."""
        if Block.is_block_class(annotation):
            return True
        is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
        return is_union and any(Block.is_block_class(member) for member in typing.get_args(annotation))

    @classmethod
    def get_block_class_from_key(cls, key: str) -> type[Self]:
        """The class of that slug.

        Raises:
            UnknownBlockType: none was defined or imported here.
        """
        return typing.cast("type[Self]", class_of(key))

    # Saving

    @dual()
    def save(self, name: str | None = None, overwrite: bool = False, client: Any = None) -> UUID:  # noqa: ARG002
        """Save it under its type and this name, or the name it was loaded by. Returns its id.

        Args:
            name: lower-case letters, digits and dashes.
            overwrite: replace one of that name.
            client: accepted for Prefect's sake.

        Raises:
            ValueError: the name is none, missing, or taken.
            SecretKeyError: its secrets cannot be encrypted.
        """
        return self._save(name, overwrite)

    asave: ClassVar[Any] = save.aio  # type: ignore[attr-defined]

    def _save(self, name: str | None, overwrite: bool) -> UUID:
        name = name or self._block_document_name
        if name is None:
            raise ValueError(
                "You're attempting to save a block document without a name. Please either call `save` with a `name` "
                "or pass `is_anonymous=True` to save an anonymous block."
            )
        if not _NAME.fullmatch(name):
            raise ValueError("Block document name must only contain lowercase letters, numbers, and dashes.")
        home = documents.current_home()
        now = now_us()
        document = BlockDocument(
            id=uuid.uuid4(),
            type_slug=self.get_block_type_slug(),
            name=name,
            data=_fields(home, self),
            created_us=now,
            updated_us=now,
        )
        type(self)._register()
        saved = home.store.blocks.put(document, overwrite=overwrite)
        if saved is None:
            raise ValueError(
                "You are attempting to save values with a name that is already in use for this block type. If you "
                "would like to overwrite the values that are saved, then save with `overwrite=True`."
            )
        self._block_document_id, self._block_document_name, self._is_anonymous = saved.id, name, False
        return saved.id

    @classmethod
    @dual()
    def register_type_and_schema(cls, client: Any = None) -> None:  # noqa: ARG003
        """Make the type known to this home.

        Raises:
            InvalidBlockRegistration: this is `Block` itself.
        """
        cls._register()

    aregister_type_and_schema: ClassVar[Any] = classmethod(register_type_and_schema.__func__.aio)  # type: ignore[attr-defined]

    @classmethod
    def _register(cls) -> None:
        if cls is Block:
            raise InvalidBlockRegistration(
                "`register_type_and_schema` should be called on a Block subclass and not on the Block class directly."
            )
        documents.current_home().store.blocks.put_type(
            BlockType(
                slug=cls.get_block_type_slug(),
                name=cls.get_block_type_name(),
                description=cls.get_description(),
                code_example=cls.get_code_example(),
                schema=_schema(cls),
                created_us=now_us(),
            )
        )

    # Loading

    @classmethod
    @dual()
    def load(cls, name: str, validate: bool = True, client: Any = None) -> Self:  # noqa: ARG003
        """The block saved under that name.

        Args:
            name: its name; `Block.load` takes "type/name".
            validate: whether the data must fit the class as it is now; otherwise what is missing is None.
            client: accepted for Prefect's sake.

        Raises:
            ValueError: there is none.
            UnknownBlockType: its class was not defined or imported here.
            RuntimeError: the data does not fit.
            SecretKeyError: its secrets cannot be decrypted.
        """
        return typing.cast("Self", loaded(cls, name, validate))

    aload: ClassVar[Any] = classmethod(load.__func__.aio)  # type: ignore[attr-defined]

    @classmethod
    @dual()
    def load_from_ref(
        cls,
        ref: str | UUID | dict[str, Any],
        validate: bool = True,
        client: Any = None,  # noqa: ARG003
    ) -> Self:
        """The block of an id, given as such or as `{"block_document_id": ...}`, or of `{"block_document_slug": ...}`.

        Raises:
            ValueError: there is none, or it is no reference.
        """
        return typing.cast("Self", _referred(cls, ref, validate))

    aload_from_ref: ClassVar[Any] = classmethod(load_from_ref.__func__.aio)  # type: ignore[attr-defined]

    @classmethod
    @dual()
    def delete(cls, name: str, client: Any = None) -> None:  # noqa: ARG003
        """Delete the block saved under that name (`Block.delete`: "type/name").

        Raises:
            ValueError: there is none.
        """
        documents.current_home().store.blocks.delete(_document(cls, name).id)

    adelete: ClassVar[Any] = classmethod(delete.__func__.aio)  # type: ignore[attr-defined]

    def get_block_placeholder(self) -> str:
        """How a template refers to this block.

        Raises:
            BlockNotSavedError: it was not saved.
        """
        if self._block_document_name is None:
            raise BlockNotSavedError("Could not generate block placeholder for unsaved block.")
        return f"prefect.blocks.{self.get_block_type_slug()}.{self._block_document_name}"


def load_by_slug(slug: str) -> Block:
    """The block saved as "type/name". Raises as `Block.load`."""
    return loaded(Block, slug, validate=True)


def slugify(text: str) -> str:
    """Lower case, with a dash for everything that is no letter or digit."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def class_of(slug: str) -> type[Block]:
    """The class of that slug.

    Raises:
        UnknownBlockType: none was defined or imported here.
    """
    if slug not in types_by_slug and slug in _OURS:
        import_module(_OURS[slug])
    if slug not in types_by_slug:
        raise UnknownBlockType(
            f"No block class found for slug {slug!r}. Please ensure that the block class is available in the current "
            "environment."
        )
    return types_by_slug[slug]


def loaded(cls: type[Block], name: str, validate: bool) -> Block:
    """The block of that class and name; see `Block.load`."""
    document = _document(cls, name)
    return _from_document(class_of(document.type_slug) if cls is Block else cls, document, validate)


def _document(cls: type[Block], name: str) -> BlockDocument:
    slug = cls.get_block_type_slug()
    if cls is Block:
        slug, name = name.split("/", 1)
    found = documents.current_home().store.blocks.get(slug, name)
    if found is None:
        raise ValueError(f"Unable to find block document named {name} for block type {slug}")
    return found


def _referred(cls: type[Block], ref: str | UUID | dict[str, Any], validate: bool) -> Block:
    if isinstance(ref, dict):
        if "block_document_slug" in ref:
            return loaded(cls, ref["block_document_slug"], validate)
        ref = ref.get("block_document_id", "")
    try:
        id = ref if isinstance(ref, UUID) else UUID(str(ref))
    except ValueError:
        raise ValueError(f"Block document ID {ref!r} is not a valid UUID") from None
    document = documents.current_home().store.blocks.by_id(id)
    if document is None:
        raise ValueError(f"Unable to find block document with ID {str(id)!r}")
    return _from_document(class_of(document.type_slug) if cls is Block else cls, document, validate)


def _from_document(cls: type[Block], document: BlockDocument, validate: bool) -> Block:
    home = documents.current_home()
    data = {name: _restored(home, value) for name, value in document.data.items()}
    try:
        block = cls.model_validate(data)
    except ValidationError as error:
        if validate:
            raise RuntimeError(
                f"Unable to load {document.name!r} of block type {document.type_slug!r} due to failed validation. To "
                "load without validation, try loading again with `validate=False`."
            ) from error
        missing = [name for name in cls.model_fields if name not in data]
        warnings.warn(
            f"Could not fully load {document.name!r} of block type {document.type_slug!r} - this is likely because one "
            f"or more required fields were added to the schema for {cls.__name__!r} that did not exist on the class "
            "when this block was last saved. Please specify values for new field(s): "
            f"{', '.join(map(repr, missing))}, then run `{cls.__name__}.save({document.name!r}, overwrite=True)`, and "
            "load this block again before attempting to use it.",
            stacklevel=5,
        )
        block = cls.model_construct(**dict.fromkeys(missing), **data)
    block._block_document_id, block._block_document_name, block._is_anonymous = document.id, document.name, False
    return block


# Between fields and plain data


def _fields(home: Any, model: BaseModel) -> dict[str, Any]:
    aliases = {name: field.alias for name, field in type(model).model_fields.items() if field.alias}
    values = {**model.__dict__, **(model.__pydantic_extra__ or {})}
    # What `block_initialization` made is no field.
    kept = {name: value for name, value in values.items() if not name.startswith("_")}
    return {aliases.get(name, name): _plain(home, value) for name, value in kept.items()}


def _plain(home: Any, value: Any) -> Any:
    """A field's value as a document has it."""
    if hasattr(value, "get_secret_value"):
        redaction.notice(value)
        return documents.seal(home, to_jsonable_python(value.get_secret_value()))
    if isinstance(value, Block):
        if value._block_document_id is not None:
            return {documents.BLOCK: str(value._block_document_id)}
        return {documents.INLINE: {"type": value.get_block_type_slug(), "data": _fields(home, value)}}
    if isinstance(value, BaseModel):
        return documents.escaped(_fields(home, value))
    if isinstance(value, dict):
        return documents.escaped({str(key): _plain(home, item) for key, item in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(home, item) for item in value]
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError as error:
        raise ValueError(f"A block's field holds {type(value).__name__}, which JSON cannot express.") from error


def _restored(home: Any, data: Any) -> Any:
    """What a document's data stands for."""
    match documents.kind_of(data):
        case documents.SECRET:
            return documents.unseal(home, data[documents.SECRET])
        case documents.PLAIN:
            return {key: _restored(home, item) for key, item in data[documents.PLAIN].items()}
        case documents.INLINE:
            inline = data[documents.INLINE]
            fields = {name: _restored(home, item) for name, item in inline["data"].items()}
            return class_of(inline["type"]).model_validate(fields)
        case documents.BLOCK:
            document = home.store.blocks.by_id(UUID(data[documents.BLOCK]))
            return None if document is None else _from_document(class_of(document.type_slug), document, True)
    if isinstance(data, dict):
        return {key: _restored(home, item) for key, item in data.items()}
    return [_restored(home, item) for item in data] if isinstance(data, list) else data


def _has_secrets(value: Any) -> bool:
    return next(redaction.secrets_in(value), None) is not None


def _revealed(value: Any) -> Any:
    """A field's value as JSON with its secrets readable, for who asks for them."""
    if hasattr(value, "get_secret_value"):
        return to_jsonable_python(value.get_secret_value())
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", context={"include_secrets": True})
    if isinstance(value, dict):
        return {key: _revealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_revealed(item) for item in value]
    return to_jsonable_python(value)


# The class as a schema


def _generic(cls: type[Block]) -> type[Block]:
    return typing.cast("type[Block]", cls.__pydantic_generic_metadata__["origin"] or cls)


def _schema(cls: type[Block]) -> dict[str, Any]:
    try:
        return cls.model_json_schema()
    except Exception:  # a field's class may have no JSON form
        return {}


def _secret_paths(annotation: Any) -> Iterator[str]:
    """Where in a field of this type secrets are: "" for the field itself, ".name" below it."""
    kind = typing.get_origin(annotation) or annotation
    if inspect.isclass(kind):
        if hasattr(kind, "get_secret_value"):
            of = typing.get_args(annotation) or getattr(kind, "__args__", ())
            of = of or (kind.__dict__.get("_inner_schema"),)
            yield ".*" if any((typing.get_origin(one) or one) is dict for one in of) else ""
            return
        if issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                yield from (f".{name}{tail}" for tail in _secret_paths(field.annotation))
            return
    for argument in typing.get_args(annotation):
        yield from _secret_paths(argument)
