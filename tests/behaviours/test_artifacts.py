"""Artifacts: what is kept, of which run, in which versions."""

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_nb import flow, task
from prefect_nb.artifacts import (
    Artifact,
    ImageArtifact,
    LinkArtifact,
    MarkdownArtifact,
    ProgressArtifact,
    TableArtifact,
    acreate_artifact,
    acreate_image_artifact,
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
    create_artifact,
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect_nb.exceptions import ArtifactTooLarge, ConfigurationError, ObjectNotFound
from prefect_nb.interfaces import Artifact as Kept
from prefect_nb.service import artifacts as service
from prefect_nb.task_runners import ProcessPoolTaskRunner


class Fancy:
    def _repr_html_(self):
        return "<b>fancy</b>"

    def _repr_png_(self):
        return b"\x89PNG"

    def __repr__(self):
        return "Fancy()"


def in_flow(call):
    """What the call gives inside a flow run, with the run's state."""

    @flow
    def f():
        return call()

    state = f(return_state=True)
    return state.result(), state


@pytest.mark.parametrize(
    ("call", "type_", "data"),
    [
        (lambda: create_markdown_artifact("# hi", key="k", description="d"), "markdown", "# hi"),
        (lambda: create_link_artifact("https://x", key="k", description="d"), "markdown", "[https://x](https://x)"),
        (lambda: create_link_artifact("https://x", "X", key="k", description="d"), "markdown", "[X](https://x)"),
        (lambda: create_image_artifact("https://x/y.png", key="k", description="d"), "image", "https://x/y.png"),
        (lambda: create_progress_artifact(55.5, key="k", description="d"), "progress", 55.5),
        (lambda: create_progress_artifact(-1, key="k", description="d"), "progress", 0),
        (lambda: create_progress_artifact(101, key="k", description="d"), "progress", 100),
        (lambda: create_progress_artifact(float("nan"), key="k", description="d"), "progress", None),
        (lambda: create_table_artifact({"a": [1]}, key="k", description="d"), "table", '{"a": [1]}'),
        (lambda: create_table_artifact([{"a": float("nan")}], "k", "d"), "table", '[{"a": null}]'),
        (lambda: create_table_artifact([[1, float("inf")]], "k", "d"), "table", "[[1, Infinity]]"),
        (lambda: create_table_artifact([], "k", "d"), "table", "[]"),
        (
            lambda: create_artifact(Fancy(), "k", "d"),
            "rich",
            {"text/plain": "Fancy()", "text/html": "<b>fancy</b>", "image/png": "iVBORw=="},
        ),
    ],
)
def test_what_is_kept_of_each_kind(call, type_, data):
    id, state = in_flow(call)
    found = Artifact.get("k")
    assert isinstance(id, uuid.UUID)
    assert (found.id, found.key, found.type, found.description, found.data) == (id, "k", type_, "d", data)
    assert found.flow_run_id == state.state_details.flow_run_id
    assert found.task_run_id is None
    assert found.created == found.updated


@pytest.mark.parametrize("how", ["call", "submit"])
def test_artifacts_of_tasks_belong_to_both_runs(how, history):
    @task
    def t():
        return create_markdown_artifact("x", key="k")

    _, state = in_flow(lambda: t() if how == "call" else t.submit().result())
    (run,) = history.task_runs()
    found = Artifact.get("k")
    assert (found.task_run_id, found.flow_run_id) == (run.id, state.state_details.flow_run_id)


def test_artifacts_of_other_processes_belong_to_their_runs(history):
    @task
    def t(n):
        from prefect_nb.artifacts import create_markdown_artifact

        return create_markdown_artifact(str(n), key=f"k-{n}")

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def f():
        t.map([1, 2]).wait()

    state = f(return_state=True)
    found = [Artifact.get("k-1"), Artifact.get("k-2")]
    assert {one.task_run_id for one in found} == {run.id for run in history.task_runs()}
    assert {one.flow_run_id for one in found} == {state.state_details.flow_run_id}


def test_outside_runs_it_is_kept_with_a_warning():
    with pytest.warns(FutureWarning, match="outside of a flow or task run"):
        create_markdown_artifact("x", key="k")
    with pytest.warns(FutureWarning):
        MarkdownArtifact(markdown="x", key="k").create()
    with pytest.warns(FutureWarning):
        create_artifact(Fancy(), key="k")
    assert Artifact.get("k").flow_run_id is None


@pytest.mark.parametrize("key", ["Bad", "a_b", "a b", "é", "a\n", "../x", "a/b", "a.b", "nul\0", "٣"])
def test_a_bad_key_is_refused(key):
    def call():
        for create in (create_markdown_artifact, create_image_artifact, create_link_artifact):
            with pytest.raises(ValueError, match="must only contain lowercase letters, numbers, and dashes"):
                create("x", key=key)
        with pytest.raises(ValueError, match="lowercase"):
            create_artifact(Fancy(), key=key)

    in_flow(call)


@given(st.text())
def test_a_key_is_plain_or_refused(key):
    try:
        kept = MarkdownArtifact(markdown="", key=key).key
    except ValueError:
        return
    assert set(kept) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_versions_of_one_key(history):
    def call():
        return [create_markdown_artifact(str(n), key="k") for n in range(3)]

    ids, _ = in_flow(call)
    assert Artifact.get("k").id == ids[-1]
    assert [one.id for one in service.versions("k")] == ids[::-1]
    assert [one.id for one in service.listing()] == [ids[-1]]
    assert len(service.listing(every_version=True)) == 3
    assert Artifact.get("other") is None
    assert Artifact.get() is None


def test_progress_moves():
    def call():
        id = create_progress_artifact(0, key="k", description="d")
        assert update_progress_artifact(id, 70) == id
        first = Artifact.get("k")
        update_progress_artifact(id, 170, description="e")
        return first, Artifact.get("k")

    (first, second), _ = in_flow(call)
    assert (first.data, first.description) == (70, "d")
    assert (second.data, second.description) == (100, "e")
    assert second.updated > second.created
    with pytest.raises(ObjectNotFound):
        update_progress_artifact(uuid.uuid4(), 1)


def test_get_or_create():
    def call():
        return [
            Artifact.get_or_create("k", description="d", data={"a": 1}, type="own"),
            Artifact.get_or_create("k", description="e", data="z"),
            MarkdownArtifact.get_or_create("m", markdown="text"),
        ]

    ((made, is_new), (found, is_new_again), (markdown, _)), _ = in_flow(call)
    assert (made.type, made.data, is_new) == ("own", '{"a": 1}', True)
    assert (found.id, found.description, is_new_again) == (made.id, "d", False)
    assert (markdown.type, markdown.data) == ("markdown", "text")


def test_formats():
    assert Artifact(data={"a": 1}).format() == '{"a": 1}'
    assert Artifact().format() == "null"
    assert MarkdownArtifact(markdown="m").format() == "m"
    assert LinkArtifact(link="l", link_text="t").format() == "[t](l)"
    assert TableArtifact(table=[{"a": float("nan")}]).format() == '[{"a": null}]'
    assert ProgressArtifact(progress="55").format() == 55.0
    assert ImageArtifact(image_url="u").format() == "u"


@pytest.mark.parametrize(
    "make",
    [
        lambda: MarkdownArtifact(markdown=None),
        lambda: MarkdownArtifact(key="k"),
        lambda: MarkdownArtifact(markdown="x", foo=1),
        lambda: TableArtifact(table=5),
        lambda: TableArtifact(table="[]"),
        lambda: ProgressArtifact(progress="x"),
        lambda: LinkArtifact(link=5),
    ],
)
def test_what_is_no_such_artifact_is_refused(make):
    with pytest.raises(ValueError, match="validation error"):
        make()


async def test_in_coroutines_each_is_awaited():
    @flow
    async def f():
        made = [
            await create_markdown_artifact("x", key="a"),
            await acreate_markdown_artifact("x", key="a"),
            await create_table_artifact([], key="b"),
            await acreate_table_artifact([], key="b"),
            await create_link_artifact("x", key="c"),
            await acreate_link_artifact("x", key="c"),
            await create_image_artifact("x", key="d"),
            await acreate_image_artifact("x", key="d"),
            await create_artifact(Fancy(), key="e"),
            await acreate_artifact(Fancy(), key="e"),
        ]
        progress = await create_progress_artifact(1, key="p")
        await update_progress_artifact(progress, 2)
        progress = await acreate_progress_artifact(1, key="p")
        await aupdate_progress_artifact(progress, 3)
        assert (await Artifact.get("p")).data == (await Artifact.aget("p")).data == 3
        assert not (await Artifact.get_or_create("p"))[1]
        assert (await MarkdownArtifact.aget_or_create("q", markdown="m"))[1]
        made.append((await MarkdownArtifact(markdown="m").create()).id)
        made.append((await MarkdownArtifact(markdown="m").acreate()).id)
        return made

    state = await f(return_state=True)
    made = await state.result()
    kept = service.listing(every_version=True)
    assert set(made) <= {one.id for one in kept}
    assert {one.flow_run_id for one in kept} == {state.state_details.flow_run_id}


def test_too_large():
    def call():
        create_markdown_artifact("x" * (5 * 1024 * 1024), key="fits")
        with pytest.raises(ArtifactTooLarge, match=r"more than 5\.2 MB"):
            create_markdown_artifact("x" * (5 * 1024 * 1024 + 1), key="k")
        with pytest.raises(ArtifactTooLarge):
            create_markdown_artifact("日" * (2 * 1024 * 1024), key="k")

    in_flow(call)
    assert Artifact.get("k") is None
    assert Artifact.get("fits") is not None


def test_figures_and_data_frames():
    import pandas
    from matplotlib.figure import Figure

    def call():
        figure = Figure()
        figure.subplots().plot([1, 2])
        create_artifact(figure, key="figure")
        create_artifact(pandas.DataFrame({"a": [1, 2]}), key="frame")

    in_flow(call)
    assert Artifact.get("figure").data["image/png"].startswith("iVBOR")
    assert "<table" in Artifact.get("frame").data["text/html"]


def test_an_object_with_a_bundle_and_metadata_and_one_that_cannot():
    class Bundled:
        def _repr_mimebundle_(self, include=None, exclude=None):
            return {"text/plain": "b", "application/x+json": {"a": 1}}, {"meta": 1}

        def _repr_html_(self):
            raise NotImplementedError

    def call():
        create_artifact(Bundled(), key="b")
        with pytest.raises(TypeError, match="no rich representation"):
            create_artifact(object())
        with pytest.raises(TypeError, match="create_markdown_artifact"):
            create_artifact("text")

    in_flow(call)
    assert Artifact.get("b").data == {"text/plain": "b", "application/x+json": {"a": 1}}


HOSTILE = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("type_", "data", "kind", "shown"),
    [
        ("rich", {"text/html": "<b>x</b>"}, "text/html", "<b>x</b>"),
        ("markdown", HOSTILE, "text/markdown", HOSTILE),
        ("progress", 25.0, "text/html", '<progress max="100" value="25"></progress> 25 %'),
        ("image", "javascript:alert(1)", "text/html", None),
        ("image", '"><script>', "text/html", None),
        ("image", "https://x/y.png", "text/html", '<img src="https://x/y.png" alt="k">'),
    ],
)
def test_what_a_notebook_shows(type_, data, kind, shown):
    def call():
        service.create(type_, data, "k", None)

    in_flow(call)
    assert Artifact.get("k")._repr_mimebundle_().get(kind) == shown


def test_a_table_is_shown_escaped():
    in_flow(lambda: create_table_artifact([{HOSTILE: HOSTILE}], key="k"))
    shown = Artifact.get("k")._repr_mimebundle_()["text/html"]
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 2


def table(data):
    return Kept(id=uuid.uuid4(), type="table", data=json.dumps(data))


def test_an_exported_table_holds_no_formulas():
    artifact = table([{"=name": "=cmd()|' /C calc'!A0", "n": -5}, {"=name": "+1+1", "n": "-5.5"}, {"=name": "@x,y"}])
    assert service.as_csv(artifact) == ("'=name,n\n'=cmd()|' /C calc'!A0,-5\n'+1+1,-5.5\n\"'@x,y\",\n")
    assert service.as_records(artifact)[0] == {"'=name": "'=cmd()|' /C calc'!A0", "n": -5}


@given(st.text())
def test_no_text_is_exported_as_a_formula(text):
    cell = service.harmless(text)
    assert cell.endswith(text)
    assert not cell.lstrip(" ").startswith(("=", "@", "\t", "\r"))


def test_tables_of_every_form():
    assert service.table_of({"a": [1, 2], "b": [3]}) == (["a", "b"], [[1, 3], [2, None]])
    assert service.table_of([{"a": 1}, {"b": 2}]) == (["a", "b"], [[1, None], [None, 2]])
    assert service.table_of([[1], [2, 3]]) == (["0", "1"], [[1, None], [2, 3]])
    assert service.table_of([]) == ([], [])
    with pytest.raises(ConfigurationError):
        service.as_csv(Kept(id=uuid.uuid4(), type="markdown", data="x"))
