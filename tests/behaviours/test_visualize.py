"""`flow.visualize()`: the graph of a flow's calls, without running a task and without Graphviz."""

import xml.etree.ElementTree as ET

import pytest

from prefect_nb import flow, task
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery

pytestmark = pytest.mark.filterwarnings("ignore:`flow.visualize")


@task
def load(path):
    raise AssertionError("a task ran")


@task
def clean(rows, strict=True):
    raise AssertionError("a task ran")


@task(viz_return_value=[1, 2])
def pair():
    raise AssertionError("a task ran")


@flow
def report(rows):
    raise AssertionError("a sub-flow ran")


def test_calls_are_nodes_and_values_passed_on_are_edges():
    @flow
    def main(path="a.csv"):
        rows = load(path)
        tidy = clean(rows, strict=False)
        report(tidy)

    graph = main.visualize()
    assert graph.nodes == {"load-0": "task", "clean-0": "task", "report-0": "flow"}
    assert graph.edges == [("load-0", "clean-0"), ("clean-0", "report-0")]


def test_nothing_is_recorded():
    @flow
    def main():
        return clean(load("x"))

    main.visualize()
    home = Home.current()
    home.ledger.commit()
    assert home.store.task_runs(RunQuery()) == []
    assert home.store.flow_runs(RunQuery()) == []


def test_submit_map_and_wait_for_are_drawn_too():
    @flow
    def main():
        first = load.submit("x")
        first.wait()
        many = clean.map(first)
        clean.submit(many.result(), wait_for=[first])

    assert main.visualize().edges == [("load-0", "clean-0"), ("clean-0", "clean-1"), ("load-0", "clean-1")]


def test_dependencies_inside_containers_are_found():
    @flow
    def main():
        clean({"rows": [load("a"), (load("b"),)]})

    assert main.visualize().edges == [("load-0", "clean-0"), ("load-1", "clean-0")]


def test_a_flow_that_looks_at_a_value_needs_viz_return_value():
    @flow
    def looking():
        if load("x") > 3:
            clean(1)

    with pytest.raises(TypeError, match="viz_return_value"):
        looking.visualize()

    @flow
    def told():
        both = pair()
        if both[0] < both[1]:
            clean(both)

    assert told.visualize().edges == [("pair-0", "clean-0")]


def test_parameters_are_those_of_the_flow():
    @flow
    def main(n):
        for _ in range(n):
            load("x")

    assert list(main.visualize(3).nodes) == ["load-0", "load-1", "load-2"]


async def test_async_flows_and_tasks():
    @task
    async def fetch(x):
        raise AssertionError("a task ran")

    @flow
    async def main():
        return clean(await fetch(1))

    assert main.visualize().edges == [("fetch-0", "clean-0")]


def test_it_says_that_the_flows_own_code_is_executed():
    @flow
    def main():
        pass

    with pytest.warns(UserWarning, match="executes the code of your flow"):
        main.visualize()


def test_pictures_and_texts(tmp_path):
    @task(name='odd <name> "&"')
    def odd():
        pass

    @flow
    def main():
        clean([odd(), load(odd())])

    graph = main.visualize()
    root = ET.fromstring(graph.svg())
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert set(texts) == set(graph.nodes)
    tops = {
        text.text: float(rect.get("y"))
        for rect, text in zip(
            root.iter("{http://www.w3.org/2000/svg}rect"), root.iter("{http://www.w3.org/2000/svg}text"), strict=True
        )
    }
    assert all(tops[edge.source] < tops[edge.target] for edge in graph.edges)
    assert main.generate_mermaid_graph().startswith("flowchart TD\n")
    assert 'digraph "main"' in graph.dot()
    assert "clean-0 <- " in str(graph)
    assert set(graph._repr_mimebundle_()) == {"image/svg+xml", "text/plain"}
    assert graph.save(tmp_path / "flow.svg").read_text() == graph.svg()
    with pytest.raises(ValueError, match=r"\.svg"):
        graph.save(tmp_path / "flow.png")
