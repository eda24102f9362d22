"""Pictures of graphs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rain.client import RainException, blob, delayed, directory, remote, tasks
from rain.client.graph import Graph, Node
from rain.client.session import Session


def fake_program(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_nodes():
    graph = Graph()
    node, existed = graph.node_check("a")
    assert isinstance(node, Node)
    assert (existed, graph.node_check("a"), graph.node("a")) == (False, (node, True), node)
    assert not graph.has_node("b")
    graph.node("b")
    assert (graph.has_node("b"), graph.size, [one.key for one in graph.nodes]) == (True, 2, ["a", "b"])


def test_arcs():
    graph = Graph()
    a, b, c = map(graph.node, "abc")
    a.add_arc(b, "1")
    a.add_arc(c, "2")
    a.add_arc(b, "3")
    found = a.arc_by_data("3")
    assert found is not None
    assert found.node is b
    assert a.arc_by_data("4") is None
    graph.merge_arcs(lambda one, other: f"{one},{other}")
    assert [(arc.node.key, arc.data) for arc in a.arcs] == [("b", "1,3"), ("c", "2")]


def test_dot_text():
    graph = Graph()
    a = graph.node("a")
    a.label, a.shape, a.fontcolor = 'say "x"\n\\', "box", "red"
    a.add_arc(graph.node("b"), "arc")
    a.add_arc(a)
    assert graph.make_dot("G") == (
        'digraph "G" {\n'
        '  v0 [label="say \\"x\\"\\n\\\\", shape="box", fontcolor="red"];\n'
        '  v0 -> v1 [label="arc"];\n'
        "  v0 -> v0;\n"
        "  v1;\n"
        "}\n"
    )


def test_graph_of_a_session(graph: Session):
    source = blob("x", "input")
    tree = tasks.make_directory({"a": source})
    run = tasks.Execute(["cat", source, tree], stdout=True, name="run")
    run.keep_outputs()
    made = graph.make_graph()
    assert made.size == 5
    assert [made.node(thing.id).shape for thing in (source, tree, tree.output, run, run.output)] == [
        "box",
        "oval",
        "box",
        "oval",
        "box",
    ]
    assert (made.node(run.output.id).color is None, made.node(source.id).color) == (False, None)
    assert made.node(run.id).label == "run\nbuildin/run\n1/14"
    arcs = [(arc.node.key, arc.data) for arc in made.node(source.id).arcs]
    assert arcs == [(tree.id, "0"), (run.id, "0")]
    assert [arc.data for arc in made.node(run.id).arcs] == ["0: stdout"]
    assert "1/10" in made.make_dot("x")
    assert "1/10" not in graph.make_graph(show_ids=False).make_dot("x")


def test_graph_of_all_kinds_of_things(graph: Session):
    def f(ctx, a):
        pass

    remote(f)(directory())
    tasks.Store(blob("x"), "/x")
    assert graph.make_graph(False).size == 6
    assert Session(None, 2).make_graph().size == 0


def test_graph_of_delayed_tasks(session: Session):
    first = delayed(abs)(-1)
    second = delayed(abs)(first)
    array = session.map(delayed(abs), range(3))
    before = session.make_graph()
    assert before.size == 2 * 2 + 2 * 3 + 1
    session.submit()
    del first
    after = session.make_graph()
    assert all(node.label for node in after.nodes)
    assert after.node(second.id).shape == "oval"
    assert after.has_node(array[2].id)


def test_write(tmp_path, monkeypatch):
    fake_program(tmp_path, "dot", 'echo "$1"; cat')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    graph = Graph()
    graph.node("a")
    graph.write(tmp_path / "g.dot")
    assert (tmp_path / "g.dot").read_text() == graph.make_dot("G")
    graph.write(str(tmp_path / "g.png"))
    assert (tmp_path / "g.png").read_text() == "-Tpng\n" + graph.make_dot("G")
    assert graph._repr_svg_() == "-Tsvg\n" + graph.make_dot("G")
    with pytest.raises(ValueError, match="suffix"):
        graph.write(tmp_path / "g")


def test_show(tmp_path, monkeypatch):
    fake_program(tmp_path, "xdot", f'echo "$1" > {tmp_path}/shown; cat >> {tmp_path}/shown')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    Graph().show()
    assert (tmp_path / "shown").read_text() == '-\ndigraph "G" {\n}\n'


def test_missing_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for draw in (Graph()._repr_svg_, lambda: Graph().write(tmp_path / "g.svg")):
        with pytest.raises(RainException, match="Graphviz is not installed") as caught:
            draw()
        assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(RainException, match="xdot is not installed"):
        Graph().show()
    assert not (tmp_path / "g.svg").exists()


def test_graphviz_fails(tmp_path, monkeypatch):
    fake_program(tmp_path, "dot", "echo no such format >&2; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RainException, match=r"exit code 3.*no such format"):
        Graph().write(tmp_path / "g.strange")
