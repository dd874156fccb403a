"""Configs: every problem at once, the right key suggested, and nothing but components built."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch

from kyvo.common.config import (
    Component,
    Count,
    From,
    Positive,
    Seed,
    Share,
    as_override,
    build_config,
    check_ranges,
    load_config,
    suggest,
)
from kyvo.common.errors import InputError


@dataclass(frozen=True)
class Inner:
    weight: float = 1.0
    name: str = "inner"


@dataclass(frozen=True)
class Ranged:
    seed: Seed = 0
    steps: Count | None = None
    share: Share = 0.5
    rate: Positive = 1.0
    betas: tuple[Share, Share] = (0.9, 0.99)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Outer:
    output_dir: Path
    optimizer: Annotated[Component, From(("torch.optim", "kyvo.models"))]
    second: Annotated[Component, From(("torch.optim",))] | None = None
    inner: Inner = Inner()
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = 4
    rate: float = 0.1
    resume: bool = True
    note: str | None = None
    steps: int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    tasks: tuple[str, ...] = ()
    by_name: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, found {self.batch_size}")


GOOD: dict[str, Any] = {"output_dir": "runs/a", "optimizer": {"_component_": "torch.optim.AdamW"}}
GOOD_YAML = "output_dir: runs/a\noptimizer:\n  _component_: torch.optim.AdamW\n  lr: 1e-4\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def build(**values: Any) -> Outer:
    return build_config(Outer, {**GOOD, **values}, "config x.yaml")


def problems(values: Mapping[str, Any]) -> list[str]:
    """The listed problems of a config that must not build."""
    with pytest.raises(InputError) as caught:
        build_config(Outer, values, "config x.yaml")
    lines = str(caught.value).splitlines()
    if len(lines) > 1:
        assert lines.pop(0) == f"{len(lines)} problems:"
    assert all("config x.yaml: " in line for line in lines)
    return [line.partition("config x.yaml: ")[2] for line in lines]


def test_defaults_and_conversion() -> None:
    config = build(
        rate=2, betas=[0, 0.5], tasks=["I-3"], inner={"weight": 3}, by_name={"a": 1}, note=None
    )
    assert config.output_dir == Path("runs/a")
    assert (config.rate, type(config.rate)) == (2.0, float)
    assert config.betas == (0.0, 0.5)
    assert config.tasks == ("I-3",)
    assert config.inner == Inner(weight=3.0)
    assert (config.by_name, config.note, config.second, config.steps) == (
        {"a": 1},
        None,
        None,
        None,
    )
    assert config.optimizer == Component("torch.optim.AdamW", {})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"batchsize": 4}, "batchsize: unknown key; did you mean 'batch_size'?"),
        ({"inner": {"wieght": 2}}, "inner.wieght: unknown key; did you mean 'weight'?"),
        ({"inner": 3}, "inner: expected a mapping, found 3"),
        ({"inner": {"weight": "big"}}, "inner.weight: expected float, found 'big'"),
        ({"batch_size": "4"}, "batch_size: expected int, found '4'"),
        ({"batch_size": 4.0}, "batch_size: expected int, found 4.0"),
        ({"batch_size": True}, "batch_size: expected int, found True"),
        ({"batch_size": None}, "batch_size: expected int, found None"),
        ({"batch_size": 0}, "batch_size: expected 1 or more, found 0"),
        ({"rate": True}, "rate: expected float, found True"),
        ({"resume": 1}, "resume: expected bool, found 1"),
        ({"note": 5}, "note: expected str, found 5"),
        ({"output_dir": 5}, "output_dir: expected Path, found 5"),
        ({"precision": "bf61"}, "precision: 'bf61'; did you mean 'bf16'?"),
        ({"precision": "int8"}, "precision: 'int8'; known: bf16, fp32"),
        ({"betas": [0.9]}, "betas: expected tuple[float, float], found [0.9]"),
        ({"betas": 0.9}, "betas: expected tuple[float, float], found 0.9"),
        ({"betas": [0.9, "x"]}, "betas[1]: expected float, found 'x'"),
        ({"tasks": "I-3"}, "tasks: expected tuple[str, ...], found 'I-3'"),
        ({"by_name": {"a": "x"}}, "by_name.a: expected int, found 'x'"),
        ({"optimizer": "torch.optim.SGD"}, "optimizer: expected a mapping with _component_"),
        ({"optimizer": {"lr": 1}}, "optimizer: expected a mapping with _component_"),
        (
            {"optimizer": {"_component_": "torch.optim.AdamW", "learning_rate": 1}},
            "optimizer.learning_rate: unknown key; known: amsgrad",
        ),
        (
            {"optimizer": {"_component_": "torch.optim.AdamV"}},
            "optimizer._component_: no 'torch.optim.AdamV'; did you mean 'Adam",
        ),
    ],
)
def test_each_problem_names_its_key(change: dict[str, Any], problem: str) -> None:
    (found,) = problems({**GOOD, **change})
    assert found.startswith(problem)


def test_all_problems_at_once() -> None:
    found = problems({"batchsize": 4, "rate": "x", "inner": {"wieght": 1}, "betas": []})
    assert [line.split(":")[0] for line in found] == [
        "batchsize",
        "output_dir",
        "optimizer",
        "inner.wieght",
        "rate",
        "betas",
    ]


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "torch.os.system",
        "torch.hub.load",
        "torch.load",
        "subprocess.run",
        "builtins.eval",
        "kyvo.models.subprocess.run",
        "kyvo.models.builders.os.system",
        "torch.optim.lr_scheduler.LambdaLR",
        "torch.optim..Adam",
        "torch.optim",
        "Adam",
        "",
    ],
)
def test_components_outside_the_list_are_not_even_imported(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kyvo.common.config._locate", lambda _: pytest.fail("looked up"))
    (found,) = problems({**GOOD, "optimizer": {"_component_": path}})
    assert found == (
        f"optimizer._component_: {path!r} may not be used here; "
        "expected a member of torch.optim or kyvo.models"
    )


@pytest.mark.parametrize(
    "name", ["lr_scheduler", "__name__", "__class__", "__dir__", "__spec__", "__builtins__"]
)
def test_members_that_are_no_components(name: str) -> None:
    (found,) = problems({**GOOD, "optimizer": {"_component_": f"torch.optim.{name}"}})
    assert found.startswith(f"optimizer._component_: 'torch.optim.{name}' is not a component of")


def test_component_builds_with_the_programs_arguments() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    component = build(optimizer={"_component_": "torch.optim.SGD", "lr": 0.25}).optimizer
    optimizer = component.build([parameter], momentum=0.5)
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.25, 0.5)
    with pytest.raises(InputError, match=r"torch\.optim\.SGD: .*Check the keys beside"):
        component.build([parameter], tempo=3)


def test_load_floats_and_overrides(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", GOOD_YAML + "rate: 3e-4\nbetas: [1e-1, 5.e-2]\n")
    config = load_config(Outer, path)
    assert (config.rate, config.betas) == (3e-4, (0.1, 0.05))
    assert config.optimizer.arguments == {"lr": 1e-4}
    changed = load_config(
        Outer,
        path,
        ["rate=2e-5", "inner.weight=7", "optimizer.lr=0.5", "tasks=[I-3,3-I]", "note=null"],
    )
    assert (changed.rate, changed.inner.weight, changed.betas) == (2e-5, 7.0, (0.1, 0.05))
    assert changed.optimizer.arguments == {"lr": 0.5}
    assert (changed.tasks, changed.note) == (("I-3", "3-I"), None)


def test_base_chain(tmp_path: Path) -> None:
    """The nearest file wins, mappings merge, and bases lie beside the file that names them."""
    write(tmp_path / "shared/root.yaml", GOOD_YAML + "rate: 1.0\nsteps: 1\ninner: {weight: 5}\n")
    write(tmp_path / "shared/middle.yaml", "base: root.yaml\nsteps: 2\nbatch_size: 2\n")
    leaf = write(tmp_path / "leaf.yaml", "base: shared/middle.yaml\nbatch_size: 3\n")
    write(leaf, leaf.read_text() + "inner: {name: leaf}\n")
    config = load_config(Outer, leaf, ["output_dir=elsewhere"])
    assert (config.rate, config.steps, config.batch_size) == (1.0, 2, 3)
    assert config.inner == Inner(5.0, "leaf")
    assert config.output_dir == Path("elsewhere")


def test_base_of_a_linked_config(tmp_path: Path) -> None:
    write(tmp_path / "real/root.yaml", GOOD_YAML)
    write(tmp_path / "real/leaf.yaml", "base: root.yaml\nbatch_size: 9\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "leaf.yaml").symlink_to(tmp_path / "real/leaf.yaml")
    for path in ("link/leaf.yaml", "leaf.yaml"):
        assert load_config(Outer, tmp_path / path).batch_size == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "not a valid yaml file: while parsing"),
        ("output_dir: 'x", "not a valid yaml file: while scanning"),
        ("a: 1\na: 2\n", "not a valid yaml file:.*duplicate key"),
        ("a: \x07", "not a valid yaml file"),
        ("- 1\n- 2\n", "expected a mapping of keys to values at the top"),
        ("just words", "just words: unknown key"),
        ("", "^2 problems"),
        ("output_dir: ${nowhere}\n", "Interpolation key 'nowhere' not found"),
        ("base: none.yaml\n", r"none\.yaml: no such file"),
        ("base: a.yaml\n", "'base' leads back to itself"),
    ],
)
def test_broken_files(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(InputError, match=re.compile(message, re.DOTALL)) as caught:
        load_config(Outer, path)
    assert (f"config: {tmp_path}" if "none" in text else f"config {tmp_path}") in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_longer_circle_and_other_encoding(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    write(tmp_path / "b.yaml", "base: a.yaml\n")
    with pytest.raises(InputError, match="leads back to itself"):
        load_config(Outer, tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_bytes(b"note: \xff\xfe\n")
    with pytest.raises(InputError, match="not a valid yaml file"):
        load_config(Outer, tmp_path / "c.yaml")


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [{folder}]",
        "!!python/object/new:os.mkdir [{folder}]",
        "!!python/name:os.system",
        "!!python/module:subprocess",
    ],
)
def test_yaml_tags_run_nothing(value: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    value = value.format(folder=made)
    with pytest.raises(InputError, match="python/"):
        load_config(Outer, write(tmp_path / "a.yaml", f"{GOOD_YAML}note: {value}\n"))
    with pytest.raises(InputError, match="python/"):
        load_config(Outer, write(tmp_path / "b.yaml", GOOD_YAML), [f"note={value}"])
    assert not made.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_size", "'batch_size': expected key=value"),
        ("--batch_size=4", "'--batch_size=4': expected key=value"),
        ("=4", "'=4': expected key=value"),
        ("tasks=[I-3", "overrides .*tasks"),
        ("batchsize=4", "did you mean 'batch_size'"),
        ("optimizer=[1]", "overrides: .*a list cannot replace a mapping"),
        ("rate=", "rate: expected float, found None"),
    ],
)
def test_bad_overrides(override: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", GOOD_YAML)
    with pytest.raises(InputError, match=re.compile(message, re.DOTALL)):
        load_config(Outer, path, [override])


def test_list_over_mapping_in_a_base(tmp_path: Path) -> None:
    write(tmp_path / "root.yaml", GOOD_YAML)
    path = write(tmp_path / "a.yaml", "base: root.yaml\noptimizer: [1]\n")
    with pytest.raises(InputError, match=r"a\.yaml: .*a list cannot replace a mapping"):
        load_config(Outer, path)


def test_suggestions() -> None:
    assert suggest("wieght", ["weight", "name"]) == "did you mean 'weight'?"
    assert suggest("zzz", ["weight", "name"]) == "known: name, weight"


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component("torch.optim.AdamW", {"lr": -1.0}), "Invalid learning rate"),
        (Component("torch.optim.AdamW", {"betas": 3}), "Check the keys"),
        (
            Component("torchtune.training.metric_logging.WandBLogger", {"project": "p"}),
            "not installed",
        ),
    ],
    ids=str,
)
def test_components_that_cannot_be_built_tell_what_to_check(component, message):
    given = [torch.nn.Parameter(torch.zeros(1))] if "optim" in component.path else []
    with pytest.raises(InputError, match=message):
        component.build(given) if given else component.build()


def test_of_several_bases_the_later_one_wins(tmp_path: Path) -> None:
    write(tmp_path / "shared.yaml", "batch_size: 7\nrate: 0.5\nnote: shared\n")
    write(tmp_path / "parts/first.yaml", "base: ../shared.yaml\n" + GOOD_YAML + "note: first\n")
    write(tmp_path / "parts/second.yaml", "note: second\nbatch_size: 8\n")
    path = write(
        tmp_path / "run.yaml", "base: [parts/first.yaml, parts/second.yaml]\noutput_dir: runs/b\n"
    )
    config = load_config(Outer, path, ["rate=0.25"])
    assert (config.note, config.batch_size, config.rate) == ("second", 8, 0.25)
    assert config.output_dir == Path("runs/b")
    assert config.optimizer.arguments == {"lr": 1e-4}


@pytest.mark.parametrize("base", ["3", "[1, 2]", "{a: b.yaml}"])
def test_a_base_that_is_no_path_is_told(tmp_path: Path, base: str) -> None:
    path = write(tmp_path / "run.yaml", f"base: {base}\n{GOOD_YAML}")
    with pytest.raises(InputError, match=r"base: .*expected a path or a list of paths"):
        load_config(Outer, path)


def test_no_base_is_no_fault(tmp_path: Path) -> None:
    assert load_config(Outer, write(tmp_path / "run.yaml", f"base:\n{GOOD_YAML}")).batch_size == 4


def test_two_ways_to_one_base_are_no_circle(tmp_path: Path) -> None:
    write(tmp_path / "root.yaml", GOOD_YAML)
    for name in ("a", "b"):
        write(tmp_path / f"{name}.yaml", f"base: root.yaml\nnote: {name}\n")
    path = write(tmp_path / "run.yaml", "base: [a.yaml, b.yaml]\n")
    assert load_config(Outer, path).note == "b"


@pytest.mark.parametrize(
    "text",
    [
        "sweep #1",
        "a=b",
        "a: b",
        "#1",
        "x # y",
        "*a",
        "&a b",
        "a,b",
        "it's",
        'say "x"',
        "a\\nb",
        "@a",
    ],
)
def test_a_value_of_the_command_line_is_taken_as_it_is(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", GOOD_YAML)
    config = load_config(Outer, path, [f"output_dir={text}", f"note={text}"])
    assert (config.output_dir, config.note) == (Path(text), text)
    quoted = load_config(Outer, path, [as_override("output_dir", text)])
    assert quoted.output_dir == Path(text)


def test_references_are_read_in_overrides_and_not_in_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", GOOD_YAML)
    given = ["note=run", "output_dir=runs/${note} #1"]
    assert load_config(Outer, path, given).output_dir == Path("runs/run #1")
    name = "'${note}' #1"
    assert load_config(Outer, path, [as_override("output_dir", name)]).output_dir == Path(name)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rate": math.nan}, "rate: expected a finite number, found nan"),
        ({"rate": -math.inf}, "rate: expected a finite number, found -inf"),
        ({"rate": 10**400}, "rate: expected a number of at most 9223372036854775807, found 1000"),
        ({"steps": 2**63}, "steps: expected a number of at most 9223372036854775807"),
        ({"betas": [0.9, math.inf]}, "betas[1]: expected a finite number"),
        (
            {"optimizer": {"_component_": "torch.optim.AdamW", "betas": [0.9, math.nan]}},
            "optimizer.betas[1]: expected a finite number, found nan",
        ),
    ],
)
def test_numbers_that_are_right_for_nothing(change: dict[str, Any], problem: str) -> None:
    (found,) = problems({**GOOD, **change})
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", -1, "expected 0 or more, found -1"),
        ("steps", 0, "expected 1 or more, found 0"),
        ("share", 1.5, "expected 0 to 1, found 1.5"),
        ("rate", 0, "expected more than 0, found 0"),
        ("seed", 0.5, "expected int, found 0.5"),
        ("share", math.nan, "expected a finite number, found nan"),
    ],
)
def test_ranges_are_rules_of_the_fields(key: str, value: float, expected: str) -> None:
    with pytest.raises(InputError, match=rf"^config x: {key}: {expected}"):
        build_config(Ranged, {key: value}, "config x")
    with pytest.raises(ValueError, match=rf"^{key}: {expected}"):
        Ranged(**{key: value})


def test_numbers_in_their_ranges_pass() -> None:
    values = {"seed": 2**63 - 1, "steps": 1, "share": 0, "rate": 1e-30, "betas": [0, 1]}
    assert build_config(Ranged, values, "x") == Ranged(2**63 - 1, 1, 0.0, 1e-30, (0.0, 1.0))
    assert build_config(Ranged, {"steps": None}, "x") == Ranged()
