import pytest

from rain.common.attribute_views import ObjectAttributes, TaskAttributes
from rain.common.attributes import ObjectInfo, ObjectSpec, SessionSpec, TaskInfo, TaskSpec, TaskSpecInput
from rain.common.data_type import DataType
from rain.common.ids import ID


def test_json_form_omits_none_and_defaults():
    for cls in (TaskSpec, TaskInfo, ObjectSpec, ObjectInfo, SessionSpec, TaskSpecInput):
        assert cls()._to_json() == {}
        assert cls._from_json({}) == cls()


def test_json_round_trip():
    spec = TaskSpec(
        id=ID(1, 12),
        task_type="py/",
        config={"zero": 0, "no": False, "empty": "", "none": None},
        inputs=[TaskSpecInput(id=ID(1, 10), label="a"), TaskSpecInput(id=ID(1, 11))],
        outputs=[ID(1, 13)],
        resources={"cpus": 0},
        user={"x": {"y": 0}},
    )
    data = spec._to_json()
    assert data == {
        "id": [1, 12],
        "task_type": "py/",
        "config": {"zero": 0, "no": False, "empty": "", "none": None},
        "inputs": [{"id": [1, 10], "label": "a"}, {"id": [1, 11]}],
        "outputs": [[1, 13]],
        "resources": {"cpus": 0},
        "user": {"x": {"y": 0}},
    }
    assert TaskSpec._from_json(data) == spec
    directory = ObjectSpec(id=ID(1, 2), data_type=DataType.DIRECTORY)
    assert directory._to_json() == {"id": [1, 2], "data_type": "dir"}
    assert ObjectSpec._from_json(directory._to_json()) == directory


@pytest.mark.parametrize("config", [0, 0.0, False, "", [], {}])
def test_config_is_omitted_only_when_none(config):
    assert TaskSpec(config=config)._to_json() == {"config": config}


def test_unknown_names():
    with pytest.raises(TypeError):
        TaskSpec(colour="red")
    with pytest.raises(AttributeError, match="colour"):
        TaskSpec._from_json({"colour": "red"})


def test_defaults_are_not_shared():
    TaskSpec().user["x"] = 1
    assert TaskSpec().user == {}
    assert TaskInfo(governor="a:1").worker == "a:1"


class TestTaskView:
    def test_before_submit(self):
        spec = TaskSpec(config={"a": 1}, resources={"cpus": 2}, user={"u": 0})
        view = TaskAttributes(spec)
        assert dict(view) == {"config": {"a": 1}, "resources": {"cpus": 2}, "u": 0}
        view["resources"]["cpus"] = 4
        view["new"] = [False]
        assert spec.resources == {"cpus": 4}
        assert spec.user == {"u": 0, "new": [False]}
        assert "info" not in view
        assert len(view) == 4

    def test_in_the_task(self):
        spec, info = TaskSpec(user={"a": 1, "b": 2}), TaskInfo()
        view = TaskAttributes(spec, info, running=True)
        view["b"] = 3
        assert (view["a"], view["b"], spec.user["b"], info.user) == (1, 3, 2, {"b": 3})
        assert "info" not in view

    def test_after_update(self):
        info = TaskInfo(start_time="2026-01-02T03:04:05.000006+00:00", duration=1.5, governor="h:1", error="bad")
        view = TaskAttributes(TaskSpec(), info)
        assert view["info"] == {
            "worker": "h:1",
            "start": "2026-01-02T03:04:05.000006+00:00",
            "duration": 1500,
            "error": "bad",
        }
        assert view["debug"] == ""
        with pytest.raises(TypeError):
            view["info"] = {}
        with pytest.raises(TypeError):
            del view["config"]

    def test_keys_that_are_not_there(self):
        view = TaskAttributes(TaskSpec(user={"a": 1}), TaskInfo(user={"a": 2}))
        del view["a"]
        with pytest.raises(KeyError):
            view["a"]
        with pytest.raises(KeyError):
            del view["a"]


class TestObjectView:
    def test_fixed_keys(self):
        spec = ObjectSpec(label="l", content_type="text", data_type=DataType.DIRECTORY)
        assert dict(ObjectAttributes(spec)) == {"spec": {"content_type": "text", "label": "l", "data_type": "dir"}}
        view = ObjectAttributes(spec, ObjectInfo(size=3, content_type="text-x", debug="d"))
        assert view["info"] == {"size": 3, "content_type": "text-x"}
        assert view["debug"] == "d"

    def test_testing_key(self):
        spec = ObjectSpec()
        view = ObjectAttributes(spec)
        view["__test"] = {"size": 5}
        assert spec.user == {"_testing": {"size": 5}}
        assert view["__test"] == {"size": 5}
        assert set(view) == {"spec", "__test"}
        assert "_testing" not in view
