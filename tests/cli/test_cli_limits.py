"""`prefect-nb gcl` and `prefect-nb concurrency-limit`."""

import os
from typing import Any

import pytest

from prefect_nb import task
from prefect_nb.concurrency.sync import concurrency
from prefect_nb.service import limits


def test_nothing_is_limited_yet(invoke):
    assert invoke("gcl", "ls").stdout == "No concurrency limits.\n"
    assert invoke("concurrency-limit", "ls").stdout == "No concurrency limits.\n"


def test_a_limit_from_its_making_to_its_end(invoke, ask):
    made = invoke("gcl", "create", "api", "--limit", "5", "--slot-decay-per-second", "2.5")
    assert made.exit_code == 0
    assert made.stdout.startswith("Made the concurrency limit 'api' (")

    (document,) = ask("gcl", "ls")
    assert (document["name"], document["limit"], document["active_slots"]) == ("api", 5, 0)
    assert (document["active"], document["slot_decay_per_second"]) == (True, 2.5)

    assert invoke("gcl", "update", "api", "--limit", "7", "--slot-decay-per-second", "0").exit_code == 0
    assert invoke("gcl", "disable", "api").exit_code == 0
    changed = ask("gcl", "inspect", "api")
    assert (changed["limit"], changed["active"], changed["slot_decay_per_second"]) == (7, False, 0.0)
    assert changed["id"] == document["id"]

    assert invoke("gcl", "enable", document["id"]).exit_code == 0
    assert ask("gcl", "inspect", "api")["active"] is True
    assert invoke("gcl", "update", "api", "--disable").exit_code == 0
    assert ask("gcl", "inspect", "api")["active"] is False

    assert invoke("gcl", "delete", "api").stdout == "Deleted the concurrency limit 'api'.\n"
    assert ask("gcl", "ls") == []


def test_a_limit_can_be_made_without_being_enforced(invoke, ask):
    invoke("gcl", "create", "later", "-l", "1", "--disable")
    assert ask("gcl", "inspect", "later")["active"] is False


def test_the_long_name_is_the_same_command(invoke, ask):
    invoke("global-concurrency-limit", "create", "database", "--limit", "3")
    assert ask("gcl", "inspect", "database") == ask("global-concurrency-limit", "inspect", "database")


def test_limits_as_a_table(invoke):
    invoke("gcl", "create", "api", "-l", "5", "--slot-decay-per-second", "2.5")
    invoke("concurrency-limit", "create", "database", "3")
    with concurrency("tag:database", occupy=2):
        header, first, second = invoke("gcl", "ls").stdout.splitlines()
        _, only = invoke("concurrency-limit", "ls").stdout.splitlines()
    assert header.split() == ["Name", "Limit", "Held", "Decay/s", "Active", "ID"]
    assert first.split()[:5] == ["api", "5", "0", "2.5", "yes"]
    assert second.split()[:5] == ["tag:database", "3", "2", "-", "yes"]
    assert only.split()[:3] == ["database", "3", "2"]


def test_who_holds_what_since_when(invoke, ask):
    limits.create_limit("database", 3)

    @task(task_run_name="the-query")
    def query() -> Any:
        with concurrency("database", occupy=2):
            from prefect_nb.home import Home

            Home.current().ledger.commit()
            return invoke("gcl", "inspect", "database").stdout, ask("gcl", "inspect", "database")

    text, document = query()
    assert "2 of 3" in text
    row = next(line for line in text.splitlines() if line.startswith("the-query"))
    assert row.split()[:4] == ["the-query", "task", "2", str(os.getpid())]
    assert row.endswith("just now")
    (holder,) = document["holders"]
    assert (holder["run_name"], holder["pid"], holder["slots"]) == ("the-query", os.getpid(), 2)
    assert document["active_slots"] == 2

    with concurrency("database"):
        (holder,) = ask("gcl", "inspect", "database")["holders"]
        assert (holder["run_name"], holder["pid"]) == (None, os.getpid())


def test_limits_of_tags(invoke, ask):
    assert invoke("concurrency-limit", "create", "database", "3").exit_code == 0
    assert invoke("concurrency-limit", "create", "database", "2").exit_code == 0
    document = ask("concurrency-limit", "inspect", "database")
    assert (document["name"], document["limit"], document["holders"]) == ("tag:database", 2, [])
    with concurrency("tag:database"):
        reset = invoke("concurrency-limit", "reset", "database")
        assert reset.stdout == "Freed 1 slot of the tag 'database'.\n"
        assert ask("concurrency-limit", "inspect", "database")["active_slots"] == 0
    assert invoke("concurrency-limit", "delete", "database").exit_code == 0
    assert ask("concurrency-limit", "ls") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gcl", "create", "database", "--limit", "1"], "There is a concurrency limit of the name 'database' already."),
        (["gcl", "create", "a/b", "--limit", "1"], "'a/b' is no name for a limit"),
        (["gcl", "create", "", "--limit", "1"], "'' is no name for a limit"),
        (["gcl", "create", "x"], "Missing option '-l' / '--limit'"),
        (["gcl", "create", "x", "--limit", "-1"], "-1 is not in the range"),
        (["gcl", "create", "x", "--limit", "many"], "'many' is not a valid integer"),
        (["gcl", "create", "x", "--limit", "1", "--slot-decay-per-second", "nan"], "0 or more slots a second, not nan"),
        (["gcl", "create", "x", "--limit", "99999999999999999999"], "A limit is 0 or more slots"),
        (["gcl", "update", "database"], "Say what to change"),
        (["gcl", "update", "databse", "--limit", "1"], "no concurrency limit 'databse'. Did you mean 'database'?"),
        (["gcl", "inspect", "nothing"], "There is no concurrency limit 'nothing'."),
        (["gcl", "delete", "nothing"], "There is no concurrency limit 'nothing'."),
        (["gcl", "enable", "nothing"], "There is no concurrency limit 'nothing'."),
        (["concurrency-limit", "create", " ", "1"], "A tag must not be empty."),
        (["concurrency-limit", "create", "x", "some"], "'some' is not a valid integer"),
        (["concurrency-limit", "inspect", "x"], "The tag 'x' has no concurrency limit."),
        (["concurrency-limit", "reset", "x"], "The tag 'x' has no concurrency limit."),
        (["concurrency-limit", "delete", "x"], "The tag 'x' has no concurrency limit."),
    ],
)
def test_what_cannot_be_is_refused_with_a_message(invoke, arguments, message):
    limits.create_limit("database", 1)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert [limit.name for limit in limits.list_limits()] == ["database"]
