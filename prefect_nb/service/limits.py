"""Concurrency limits, and who holds what of them."""

import math
import re
from typing import NamedTuple
from uuid import UUID, uuid4

from prefect_nb.exceptions import ConfigurationError, InvalidNameError, ObjectNotFound
from prefect_nb.execution.clock import now_us
from prefect_nb.home import Home
from prefect_nb.model.limits import TAG_PREFIX, Limit, Slot
from prefect_nb.service.history import settled_home
from prefect_nb.service.text import did_you_mean, one_line

_NAME = re.compile(r"[^/%&><]+")


class Holder(NamedTuple):
    """Who holds slots of a limit: a run, if it was taken in one, and always a process."""

    slot: Slot
    run_name: str | None
    run_kind: str | None
    pid: int | None


def create_limit(name: str, limit: int, *, active: bool = True, slot_decay_per_second: float = 0.0) -> Limit:
    """Make a concurrency limit.

    Args:
        name: what `concurrency` and `rate_limit` call it.
        limit: how many slots it has.
        active: whether it is enforced.
        slot_decay_per_second: how many used slots become free each second (`rate_limit` needs it); 0: none.

    Raises:
        InvalidNameError: the name is empty or holds one of `/ % & > <`.
        ConfigurationError: a number is negative or no number.
        ObjectAlreadyExists: there is one of that name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidNameError(
            f"{one_line(name)!r} is no name for a limit: it must not be empty or hold any of / % & > <."
        )
    return _create(name, limit, active, slot_decay_per_second)


def _create(name: str, limit: int, active: bool = True, decay: float = 0.0) -> Limit:
    _check(limit, decay)
    now = now_us()
    made = Limit(uuid4(), name, limit, active, float(decay), now, now)
    home = Home.current()
    home.store.limits.create(made)
    home.limits.changed()
    return made


def _check(limit: int | None, decay: float | None) -> None:
    if limit is not None and not 0 <= limit < 2**53:
        raise ConfigurationError(f"A limit is 0 or more slots, not {limit}.")
    if decay is not None and not (math.isfinite(decay) and decay >= 0):
        raise ConfigurationError(f"A decay is 0 or more slots a second, not {decay}.")


def find_limit(name: str) -> Limit:
    """The limit of that name or id.

    Raises:
        ObjectNotFound: there is none; the nearest names are named.
    """
    limits = Home.current().store.limits
    found = limits.find(name)
    if found is None:
        near = did_you_mean(name, [limit.name for limit in limits.all()])
        raise ObjectNotFound(f"There is no concurrency limit {one_line(name)!r}.{near}")
    return found


def list_limits() -> list[Limit]:
    """Every limit, those of tags included, by name."""
    return Home.current().store.limits.all()


def update_limit(
    name: str,
    *,
    new_name: str | None = None,
    limit: int | None = None,
    active: bool | None = None,
    slot_decay_per_second: float | None = None,
) -> Limit:
    """Change what is given; slots that are held stay held, even where there are more of them than the limit now.

    Raises:
        ObjectNotFound: there is no limit of that name or id.
        InvalidNameError, ConfigurationError, ObjectAlreadyExists: as with `create_limit`.
    """
    _check(limit, slot_decay_per_second)
    if new_name is not None and not _NAME.fullmatch(new_name):
        raise InvalidNameError(f"{one_line(new_name)!r} is no name for a limit.")
    home = Home.current()
    changed = home.store.limits.update(
        find_limit(name).id,
        now_us(),
        name=new_name,
        limit=limit,
        active=active,
        slot_decay_per_second=slot_decay_per_second,
    )
    home.limits.changed()
    if changed is None:
        raise ObjectNotFound(f"The concurrency limit {one_line(name)!r} has been deleted.")
    return changed


def delete_limit(name: str) -> None:
    """Remove a limit. Those who hold slots of it go on; those who wait do without it.

    Raises:
        ObjectNotFound: there is no limit of that name or id.
    """
    home = Home.current()
    home.store.limits.delete(find_limit(name).id)
    home.limits.changed()


def reset_limit(name: str) -> int:
    """Free every slot of a limit, although who holds it goes on; how many holders there were.

    Raises:
        ObjectNotFound: there is no limit of that name or id.
    """
    home = Home.current()
    freed = home.store.limits.reset(find_limit(name).id)
    home.limits.changed()
    return freed


def holders(limit: Limit) -> list[Holder]:
    """Who holds slots of a limit, longest first. What dead processes held is freed first."""
    home = settled_home()
    pids = {owner.id: owner.pid for owner in home.store.owners()}
    return [_holder(home, slot, pids) for slot in home.store.limits.slots(limit.id)]


def _holder(home: Home, slot: Slot, pids: dict[UUID, int]) -> Holder:
    store, id = home.store, slot.run_id
    run = (store.task_run(id) or store.flow_run(id)) if id is not None else None
    return Holder(slot, run.name if run else None, run.kind if run else None, pids.get(slot.owner_id))


def occupied() -> dict[UUID, int]:
    """How many slots are held, by the id of the limit."""
    held: dict[UUID, int] = {}
    for slot in settled_home().store.limits.slots():
        held[slot.limit_id] = held.get(slot.limit_id, 0) + slot.count
    return held


# Limits of tags


def set_tag_limit(tag: str, limit: int) -> Limit:
    """Let at most so many task runs with this tag be Running at once; 0: none may run, each fails at once.

    Raises:
        InvalidNameError: the tag is empty.
        ConfigurationError: the limit is negative.
    """
    if not tag.strip():
        raise InvalidNameError("A tag must not be empty.")
    name = f"{TAG_PREFIX}{tag}"
    if Home.current().store.limits.find(name) is not None:
        return update_limit(name, limit=limit, active=True)
    return _create(name, limit)


def find_tag_limit(tag: str) -> Limit:
    """The limit of a tag.

    Raises:
        ObjectNotFound: it has none.
    """
    found = Home.current().store.limits.find(f"{TAG_PREFIX}{tag}")
    if found is None:
        near = did_you_mean(tag, [tag_of(limit) for limit in list_tag_limits()])
        raise ObjectNotFound(f"The tag {one_line(tag)!r} has no concurrency limit.{near}")
    return found


def list_tag_limits() -> list[Limit]:
    """The limits of tags, by tag."""
    return [limit for limit in list_limits() if limit.name.startswith(TAG_PREFIX)]


def tag_of(limit: Limit) -> str:
    """The tag that a limit is of."""
    return limit.name.removeprefix(TAG_PREFIX)
