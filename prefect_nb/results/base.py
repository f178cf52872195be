"""What all result stores share: values become envelopes, envelopes become values."""

import logging
import time
from abc import ABC, abstractmethod
from pathlib import PurePosixPath
from typing import Any

from prefect_nb.exceptions import InvalidNameError, MissingResult, ResultCorrupt, ResultTooLarge
from prefect_nb.model.runs import ResultReference
from prefect_nb.results import envelope
from prefect_nb.results.keys import check_key
from prefect_nb.results.serializer_base import Serializer
from prefect_nb.results.serializers import decode, encode, encode_by_type
from prefect_nb.results.signing import Signer

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine"
_DIGITS = frozenset("0123456789abcdef")
_HUGE = 2 * 1024**3


class BaseResultStore(ABC):
    """A `ResultStore` but for where the bytes go.

    Args:
        default_serializer: what `put` uses where none is named. Under "pickle", arrays, data frames and pictures that
            other formats hold exactly are kept in those.
        address: how references name this store; None: the home's own. Where it is named, a key is a path below its root,
            and what has no key is below `.content`; in the home's own keys are below `keys`.
        signer: signs what is kept under keys; without one nothing can be kept so.
        largest: most bytes a result may have; None: no limit.
        trusting: whether unsigned results count, too.
    """

    def __init__(
        self,
        default_serializer: str | Serializer = "pickle",
        *,
        address: str | None = None,
        signer: Signer | None = None,
        largest: int | None = None,
        trusting: bool = False,
    ) -> None:
        self.default_serializer = default_serializer
        self.address = address
        # A key must not fall among the folders that are named by the digits of hashes.
        self._by_content, self._by_key = ("", "keys/") if address is None else (".content/", "")
        self.signer = signer
        self.largest = largest
        self.trusting = trusting

    def put(
        self, value: Any, serializer: Any = None, expires_us: int | None = None, key: str | None = None
    ) -> ResultReference:
        """Keep a value; it is whole, safe from a crash and under its final name when this returns.

        Args:
            value: what to keep.
            serializer: a serializer's name ("pickle", "json", "compressed/pickle", ...) or instance; None: the default.
            expires_us: when it stops counting as a cache hit (microseconds since the epoch).
            key: the path to keep it at, below the store's root; what was there is replaced. None: by content.

        Raises:
            InvalidNameError: the key leads elsewhere or is not portable.
            SerializationError: the value cannot be turned into bytes. Nothing is left behind.
            ResultTooLarge: it has more bytes than the settings allow. Nothing is left behind.
            StorageFull: no room. Nothing is left behind.
            StoreUnavailable: the storage cannot be written.
            ConfigurationError: there is no serializer of that name.
        """
        if key is not None:
            check_key(key)
        if serializer is None and self.default_serializer == "pickle":
            name, payload = encode_by_type(value, self.address is not None)
        else:
            name, payload = encode(value, self.default_serializer if serializer is None else serializer)
        self._consider_size(len(payload))
        if key is None:
            header, sha = envelope.seal(name, payload)
        else:
            header, sha = self._seal_keyed(envelope.About(key, name, expires_us), payload)
        reference = ResultReference(sha, len(payload), name, expires_us, storage=self.address, key=key)
        self._keep(reference, header, payload)
        return reference

    def get(self, reference: ResultReference) -> Any:
        """The value, made anew at each call.

        Raises:
            MissingResult: there is no such file.
            ResultCorrupt: it is damaged; it was set aside, and a warning says where.
            SerializationError: the file is whole but this process cannot make the value from it.
        """
        return decode(reference.serializer, self._read(reference))

    def check(self, reference: ResultReference) -> bool:
        """Whether the file is there and whole (nothing is deserialized). A damaged one is set aside."""
        try:
            self._read(reference)
        except (MissingResult, ResultCorrupt):
            return False
        return True

    def find(self, key: str) -> ResultReference | None:
        """The result kept under a key, by whomever; None if there is none to be used.

        One that is damaged, or was not signed by a home with this home's secret, is set aside with a warning. Nothing is
        deserialized.

        Raises:
            InvalidNameError: the key leads elsewhere or is not portable.
            StoreUnavailable: the home's secret cannot be read.
        """
        check_key(key)
        try:
            found = self._read_keyed(key)
        except (MissingResult, ResultCorrupt):
            return None
        about = found.about
        if not (self.trusting or (self.signer is not None and self.signer.verify(found.digest, found.signature))):
            self._set_aside(self._by_key + key, "it is not signed by this home", "is not used")
            return None
        return ResultReference(
            found.digest.hex(), len(found.payload), about.serializer, about.expires_us, storage=self.address, key=key
        )

    # What the places where bytes go provide

    @abstractmethod
    def _keep(self, reference: ResultReference, header: bytes, payload: bytes) -> None:
        """Write both. Raises `StorageFull`, `StoreUnavailable`, `InvalidNameError`."""

    @abstractmethod
    def _read(self, reference: ResultReference) -> bytes:
        """The payload, checked. Raises `MissingResult`, `ResultCorrupt`."""

    @abstractmethod
    def _read_blob(self, name: str) -> bytes:
        """The whole file of a result that was kept under a key. Raises `MissingResult`, `ResultCorrupt` (not set aside yet)."""

    @abstractmethod
    def _move_aside(self, name: str, target: str) -> str:
        """Move a file to the quarantine under the name `target` and say where that is. Raises OSError."""

    @abstractmethod
    def place(self, name: str) -> str:
        """Where a file is, for messages."""

    # Names

    def place_of(self, key: str) -> str:
        """Where the result under a key is, for people."""
        return self.place(self._by_key + key)

    def _name(self, reference: ResultReference) -> str:
        if reference.key is not None:
            return self._by_key + reference.key
        sha = reference.sha256
        if len(sha) != 64 or not set(sha) <= _DIGITS:
            raise ResultCorrupt(f"{sha!r} is no result's hash. Run the task again.")
        return f"{self._by_content}{sha[:2]}/{sha}"

    # Keys

    def _seal_keyed(self, about: envelope.About, payload: bytes) -> tuple[bytes, str]:
        head, digest, between = envelope.digest_keyed(about, payload)
        signature = self.signer.sign(digest) if self.signer is not None else bytes(32)
        return head + digest + signature + between, digest.hex()

    def _read_keyed(self, key: str) -> envelope.Keyed:
        try:
            found = envelope.unseal_keyed(self._read_blob(self._by_key + key), key)
        except ResultCorrupt as damage:
            raise ResultCorrupt(self._set_aside(self._by_key + key, str(damage))) from None
        return found

    def _read_by_key(self, reference: ResultReference) -> bytes:
        key = reference.key
        assert key is not None
        try:
            check_key(key)
        except InvalidNameError as error:
            raise ResultCorrupt(str(error)) from None
        found = self._read_keyed(key)
        if found.digest.hex() != reference.sha256 or found.about.serializer != reference.serializer:
            raise MissingResult(
                f"The result {self.place_of(key)} was replaced by a later one under the same key. Run the task again."
            )
        return found.payload

    # Sizes and damage

    def _consider_size(self, size: int) -> None:
        if self.largest is not None and size > self.largest:
            raise ResultTooLarge(
                f"A result of {size:,} bytes is larger than results may be here ({self.largest:,} bytes). Write it to a "
                "file of your own and return the path, or raise PREFECT_NB_RESULTS_MAX_BYTES."
            )
        if size > _HUGE:
            logger.warning(
                "A result of %.1f GiB is being kept. Consider writing it to a file and returning the path.",
                size / 1024**3,
            )

    def _set_aside(self, name: str, why: str, judgement: str = "is damaged") -> str:
        message = f"The result {self.place(name)} {judgement} ({why})"
        try:
            target = self._move_aside(name, f"{PurePosixPath(name).name}.{time.time_ns()}")
            message += f"; it was set aside as {target}. Its task will run again."
        except FileNotFoundError:
            message += "; somebody else has set it aside. Its task will run again."
        except OSError as error:
            message += f" and could not be set aside ({error}). Remove it by hand."
        logger.warning(message)
        return message
