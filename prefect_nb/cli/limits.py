"""`prefect-nb concurrency-limit` (of tags) and `prefect-nb global-concurrency-limit`, or `gcl` for short."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click

from prefect_nb.cli.group import Group
from prefect_nb.cli.output import as_json, facts, output_option, table
from prefect_nb.execution.clock import now_us
from prefect_nb.model.limits import Limit
from prefect_nb.service import limits as service
from prefect_nb.service.limits import Holder
from prefect_nb.service.text import ago, one_line

_COUNT = click.IntRange(min=0)
_DECAY = click.FloatRange(min=0)


@click.group(cls=Group, name="concurrency-limit")
def concurrency_limit() -> None:
    """Limit how many task runs with a tag run at once.

    Example:
      prefect-nb concurrency-limit create database 3
    """


@concurrency_limit.command(name="create")
@click.argument("tag")
@click.argument("limit", type=_COUNT)
def create_tag(tag: str, limit: int) -> None:
    """Let at most LIMIT task runs with this TAG be running at once; with 0 each fails at once.

    A limit the tag has already is changed.

    Example:
      prefect-nb concurrency-limit create database 3
    """
    service.set_tag_limit(tag, limit)
    click.echo(f"At most {limit} task runs with the tag '{one_line(tag)}' run at once.")


@concurrency_limit.command(name="ls")
@output_option
def ls_tags(output: str) -> None:
    """List the limits of tags.

    Example:
      prefect-nb concurrency-limit ls
    """
    _list(service.list_tag_limits(), "Tag", output)


@concurrency_limit.command(name="inspect")
@click.argument("tag")
@output_option
def inspect_tag(tag: str, output: str) -> None:
    """Show the limit of a tag, and which task runs run under it.

    Example:
      prefect-nb concurrency-limit inspect database
    """
    _inspect(service.find_tag_limit(tag), output)


@concurrency_limit.command(name="delete")
@click.argument("tag")
def delete_tag(tag: str) -> None:
    """Remove the limit of a tag.

    Example:
      prefect-nb concurrency-limit delete database
    """
    service.delete_limit(service.find_tag_limit(tag).name)
    click.echo(f"The tag '{one_line(tag)}' has no limit any more.")


@concurrency_limit.command(name="reset")
@click.argument("tag")
def reset_tag(tag: str) -> None:
    """Free every slot of a tag, although the task runs that hold them go on.

    Slots of processes that have ended are freed without it.

    Example:
      prefect-nb concurrency-limit reset database
    """
    freed = service.reset_limit(service.find_tag_limit(tag).name)
    click.echo(f"Freed {freed} slot{'s' * (freed != 1)} of the tag '{one_line(tag)}'.")


@click.group(cls=Group, name="global-concurrency-limit")
def global_concurrency_limit() -> None:
    """Manage the limits that `concurrency` and `rate_limit` are called with.

    Example:
      prefect-nb gcl create database --limit 3
    """


@global_concurrency_limit.command()
@click.argument("name")
@click.option("-l", "--limit", type=_COUNT, required=True, help="How many slots it has.")
@click.option("--disable", is_flag=True, help="Do not enforce it yet.")
@click.option(
    "--slot-decay-per-second",
    "decay",
    type=_DECAY,
    default=0.0,
    show_default=True,
    help="For `rate_limit`: slots a second.",
)
def create(name: str, limit: int, disable: bool, decay: float) -> None:
    """Make a limit.

    Examples:
      prefect-nb gcl create database --limit 3
      prefect-nb gcl create api --limit 5 --slot-decay-per-second 2.5
    """
    made = service.create_limit(name, limit, active=not disable, slot_decay_per_second=decay)
    click.echo(f"Made the concurrency limit '{one_line(made.name)}' ({made.id}).")


@global_concurrency_limit.command()
@output_option
def ls(output: str) -> None:
    """List every limit, those of tags included.

    Example:
      prefect-nb gcl ls
    """
    _list(service.list_limits(), "Name", output)


@global_concurrency_limit.command()
@click.argument("name")
@output_option
def inspect(name: str, output: str) -> None:
    """Show a limit, and who holds what of it. NAME is its name or id.

    Example:
      prefect-nb gcl inspect database
    """
    _inspect(service.find_limit(name), output)


@global_concurrency_limit.command()
@click.argument("name")
@click.option("-l", "--limit", type=_COUNT, help="How many slots it has.")
@click.option("--slot-decay-per-second", "decay", type=_DECAY, help="For `rate_limit`: slots a second.")
@click.option("--enable", "active", flag_value=True, default=None, type=bool, help="Enforce it.")
@click.option("--disable", "active", flag_value=False, type=bool, help="Do not enforce it.")
def update(name: str, limit: int | None, decay: float | None, active: bool | None) -> None:
    """Change a limit. Slots that are held stay held.

    Example:
      prefect-nb gcl update database --limit 5
    """
    if limit is None and decay is None and active is None:
        raise click.UsageError("Say what to change: --limit, --slot-decay-per-second, --enable or --disable.")
    changed = service.update_limit(name, limit=limit, active=active, slot_decay_per_second=decay)
    click.echo(f"Changed the concurrency limit '{one_line(changed.name)}'.")


@global_concurrency_limit.command()
@click.argument("name")
def delete(name: str) -> None:
    """Remove a limit. Those who hold slots of it go on; those who wait do without it.

    Example:
      prefect-nb gcl delete database
    """
    service.delete_limit(name)
    click.echo(f"Deleted the concurrency limit '{one_line(name)}'.")


@global_concurrency_limit.command()
@click.argument("name")
def enable(name: str) -> None:
    """Enforce a limit.

    Example:
      prefect-nb gcl enable database
    """
    service.update_limit(name, active=True)
    click.echo(f"Enabled the concurrency limit '{one_line(name)}'.")


@global_concurrency_limit.command()
@click.argument("name")
def disable(name: str) -> None:
    """Stop enforcing a limit.

    Example:
      prefect-nb gcl disable database
    """
    service.update_limit(name, active=False)
    click.echo(f"Disabled the concurrency limit '{one_line(name)}'.")


gcl = Group(
    name="gcl",
    commands=global_concurrency_limit.commands,
    help="Short for `global-concurrency-limit`.\n\nExample:\n  prefect-nb gcl create database --limit 3",
)


def _list(limits: Sequence[Limit], title: str, output: str) -> None:
    held = service.occupied()
    if output == "json":
        as_json([_document(limit, held) for limit in limits])
        return
    if not limits:
        click.echo("No concurrency limits.")
        return
    tags = title == "Tag"
    table(
        [title, "Limit", "Held", "Decay/s", "Active", "ID"],
        [
            (
                one_line(service.tag_of(limit) if tags else limit.name, 60),
                limit.limit,
                held.get(limit.id, 0),
                f"{limit.slot_decay_per_second:g}" if limit.slot_decay_per_second else "-",
                "yes" if limit.active else "no",
                limit.id,
            )
            for limit in limits
        ],
        right=["Limit", "Held", "Decay/s"],
    )


def _inspect(limit: Limit, output: str) -> None:
    found = service.holders(limit)
    held = sum(holder.slot.count for holder in found)
    if output == "json":
        as_json(_document(limit, {limit.id: held}) | {"holders": [_holder_document(holder) for holder in found]})
        return
    now = now_us()
    click.echo(one_line(limit.name))
    facts(
        [
            ("id", limit.id),
            ("held", f"{held} of {limit.limit}"),
            ("slot decay", f"{limit.slot_decay_per_second:g} a second" if limit.slot_decay_per_second else None),
            ("active", "yes" if limit.active else "no"),
            ("created", ago(limit.created_us, now)),
        ]
    )
    if found:
        click.echo()
        table(
            ["Held by", "Kind", "Slots", "PID", "Since"],
            [
                (
                    one_line(holder.run_name or "-", 40),
                    holder.run_kind or "process",
                    holder.slot.count,
                    holder.pid or "-",
                    ago(holder.slot.taken_us, now),
                )
                for holder in found
            ],
            right=["Slots", "PID"],
        )


def _document(limit: Limit, held: dict[UUID, int]) -> dict[str, Any]:
    return {
        "id": limit.id,
        "name": limit.name,
        "limit": limit.limit,
        "active": limit.active,
        "active_slots": held.get(limit.id, 0),
        "slot_decay_per_second": limit.slot_decay_per_second,
        "created": _moment(limit.created_us),
        "updated": _moment(limit.updated_us),
    }


def _holder_document(holder: Holder) -> dict[str, Any]:
    return {
        "run_id": holder.slot.run_id,
        "run_name": holder.run_name,
        "run_kind": holder.run_kind,
        "pid": holder.pid,
        "slots": holder.slot.count,
        "since": _moment(holder.slot.taken_us),
    }


def _moment(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat()
