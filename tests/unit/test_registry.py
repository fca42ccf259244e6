"""A registry finds classes by name: built-in ones, registered ones, and those of installed packages."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint

import pytest

from avatar import registry
from avatar.errors import AvatarError
from avatar.registry import Registry


class Apple: ...


@pytest.fixture
def installed(monkeypatch):
    """Entry points of packages that are pretended to be installed."""
    points: list[EntryPoint] = []

    def entry_points(group, name=None):
        return [point for point in points if point.group == group and name in (None, point.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    return points


def module_of(monkeypatch, name: str, **content) -> None:
    module = types.ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_registered_class_is_found(installed):
    fruits: Registry[Apple] = Registry("fruit", "test.fruits", {})
    assert fruits.register("apple")(Apple) is Apple
    assert fruits.get("apple") is Apple
    assert fruits.register("apple")(Apple) is Apple  # a module that is loaded again


def test_a_built_in_is_imported_when_it_is_asked_for(installed, monkeypatch):
    fruits: Registry[Apple] = Registry("fruit", "test.fruits", {"apple": f"{__name__}.fruits"})
    assert fruits.names() == ["apple"]
    monkeypatch.setattr(registry, "import_module", lambda name: fruits.register("apple")(Apple))
    assert fruits.get("apple") is Apple


def test_a_built_in_may_name_its_class(installed, monkeypatch):
    module_of(monkeypatch, "test_fruit_module", Sweet=Apple)
    assert Registry("fruit", "test.fruits", {"apple": "test_fruit_module:Sweet"}).get("apple") is Apple


def test_a_plug_in_is_found_by_its_entry_point(installed, monkeypatch):
    module_of(monkeypatch, "plum", Plum=Apple)
    installed.append(EntryPoint("plum", "plum:Plum", "test.fruits"))
    fruits: Registry[Apple] = Registry("fruit", "test.fruits", {})
    assert fruits.names() == ["plum"]
    assert fruits.get("plum") is Apple


def test_an_unknown_name_lists_the_known_ones(installed):
    installed.append(EntryPoint("plum", "plum:Plum", "test.fruits"))
    installed.append(EntryPoint("pear", "pear:Pear", "test.other"))
    fruits: Registry[Apple] = Registry("fruit", "test.fruits", {"apple": "nowhere"})
    with pytest.raises(AvatarError, match=r"no fruit 'fig'\. Known are apple, plum"):
        fruits.get("fig")


def test_a_broken_plug_in_is_a_warning_and_disturbs_nothing(installed, capsys):
    installed.append(EntryPoint("plum", "no_such_module:Plum", "test.fruits"))
    fruits: Registry[Apple] = Registry("fruit", "test.fruits", {})
    fruits.register("apple")(Apple)
    assert fruits.get("apple") is Apple
    assert "plum" not in capsys.readouterr().err
    with pytest.raises(AvatarError, match="no fruit 'plum'"):
        fruits.get("plum")
    assert "no_such_module" in capsys.readouterr().err


def test_two_classes_of_one_name_are_an_error(installed):
    fruits: Registry[Apple] = Registry("fruit", "test.fruits", {})
    fruits.register("apple")(Apple)
    with pytest.raises(AvatarError, match="Two classes"):
        fruits.register("apple")(type("Other", (), {}))


def test_a_plug_in_does_not_take_the_name_of_a_built_in(installed, monkeypatch, capsys):
    fruits: Registry[Apple] = Registry("fruit", "test.fruits", {"apple": "test_fruit_module:Sweet"})
    with pytest.raises(AvatarError, match="has the name of a built-in one"):
        fruits.register("apple")(Apple)
    module_of(monkeypatch, "test_fruit_module", Sweet=Apple)
    installed.append(EntryPoint("apple", "other:Apple", "test.fruits"))
    assert fruits.get("apple") is fruits.get("apple") is Apple
    assert capsys.readouterr().err.count("'apple' of the package other is ignored") == 1


def test_the_first_of_two_packages_with_a_name_wins(installed, monkeypatch, capsys):
    module_of(monkeypatch, "one", Plum=Apple)
    module_of(monkeypatch, "two", Plum=type("Plum", (), {}))
    installed += [EntryPoint("plum", f"{module}:Plum", "test.fruits") for module in ("one", "two")]
    assert Registry("fruit", "test.fruits", {}).get("plum") is Apple
    assert "package two is ignored: that of the package one" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("found", "words"), [(Apple, "lacks eat"), (print, "not a class"), (None, "not a class")])
def test_a_class_that_lacks_something_is_named_and_no_longer_known(installed, monkeypatch, capsys, found, words):
    module_of(monkeypatch, "plum", Plum=found)
    installed.append(EntryPoint("plum", "plum:Plum", "test.fruits"))
    fruits: Registry[Apple] = Registry("fruit", "test.fruits", {"apple": "nowhere"}, ("eat",))
    with pytest.raises(AvatarError, match=r"no fruit 'plum'\. Known are apple\."):
        fruits.get("plum")
    assert words in capsys.readouterr().err


def test_a_plug_in_that_exits_is_a_warning(installed, monkeypatch, capsys):
    def leave(self):
        raise SystemExit(7)

    monkeypatch.setattr(EntryPoint, "load", leave)
    installed.append(EntryPoint("plum", "plum:Plum", "test.fruits"))
    with pytest.raises(AvatarError, match="no fruit 'plum'"):
        Registry("fruit", "test.fruits", {}).get("plum")
    assert "SystemExit" in capsys.readouterr().err
