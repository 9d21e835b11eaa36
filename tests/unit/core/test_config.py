"""Configs: YAML 1.2, overrides, one-line errors, what enters the fingerprint."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from genloop.config import (
    INPUT,
    LAUNCH,
    ConfigError,
    InputPath,
    JobConfig,
    Settings,
    apply_words,
    computing_keys,
    dump_yaml,
    load_config,
    marked,
    read_yaml,
    words_of,
)


class Search(Settings):
    strategy: Literal["none", "best_of_n", "parm"] = "none"
    n: int = Field(1, ge=1)


class Config(JobConfig):
    search: Search = Search()
    rate: float = 1.0
    aspect: str = "1:1"
    flag: bool = False
    sizes: tuple[int, ...] = ()
    prompts: InputPath | None = None
    workers: Annotated[int, LAUNCH] = 1


def load(tmp_path: Path, text: str = "", *words: str) -> Config:
    preset = tmp_path / "p.yaml"
    preset.write_text(text)
    return load_config(Config, preset, ["out=runs/x", *words])


def test_yaml_means_what_it_looks_like(tmp_path):
    config = load(tmp_path, "aspect: 16:9\nrate: 1e-4\nsizes: [3, 4]\nprompts: a.txt")
    assert (config.aspect, config.rate, config.sizes, config.prompts) == ("16:9", 1e-4, (3, 4), Path("a.txt"))
    assert load(tmp_path, "aspect: no").aspect == "no"
    assert load(tmp_path, "aspect: 2024-01-31").aspect == "2024-01-31"
    assert load(tmp_path, "", "aspect=2024-13-45").aspect == "2024-13-45"
    assert load(tmp_path, "", "aspect=a=b").aspect == "a=b"


def test_overrides_win_and_reach_into_groups(tmp_path):
    config = load(tmp_path, "search: {n: 4}", "search.n=8", "search.strategy=parm", "flag=true")
    assert (config.search.n, config.search.strategy, config.flag) == (8, "parm", True)


def test_another_part_is_not_given_what_the_preset_says_of_its_own(tmp_path):
    class Part(Settings):
        kind: str
        options: dict[str, int] = Field({})

    class Two(JobConfig):
        judge: Part
        other: Part

    def options(*words: str) -> tuple[dict[str, int], dict[str, int]]:
        preset = tmp_path / "p.yaml"
        preset.write_text("judge: {kind: a, options: {x: 1, y: 2}}\nother: {kind: a, options: {x: 1}}")
        config = load_config(Two, preset, ["out=runs/x", *words])
        return config.judge.options, config.other.options

    assert options() == options("judge.kind=a") == ({"x": 1, "y": 2}, {"x": 1})
    assert options("judge.kind=b") == ({}, {"x": 1})
    assert options("judge.kind=b", "judge.options.z=3") == options("judge.options.z=3", "judge.kind=b")
    assert options("judge.options.z=3", "judge.kind=b") == ({"z": 3}, {"x": 1})
    assert options("judge.options.z=3") == ({"x": 1, "y": 2, "z": 3}, {"x": 1})


def test_the_kind_of_a_job_is_no_part_that_has_options() -> None:
    data = {"kind": "plain", "options": {"threshold": 0.5}}
    apply_words(data, ["kind=localised"])
    assert data == {"kind": "localised", "options": {"threshold": 0.5}}


def test_an_override_changes_its_own_place_and_not_those_that_share_an_anchor(tmp_path):
    class Two(JobConfig):
        a: Search = Search()
        b: Search = Search()

    preset = tmp_path / "p.yaml"
    preset.write_text("{out: x, a: &shared {n: 4}, b: *shared}")
    config = load_config(Two, preset, ["a.n=8"])
    assert (config.a.n, config.b.n) == (8, 4)


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("", ["serach.n=2"], "serach: unknown key; did you mean 'search'?"),
        ("", ["search.m=2"], "search.m: unknown key"),
        ("serach: {n: 2}", [], "p.yaml: serach: unknown key; did you mean 'search'?"),
        ("search: {n: 0}", ["flag=true"], "p.yaml: search.n: input should"),
        ("", ["search.strategy=param"], "did you mean 'parm'?"),
        ("", ["search.n=0"], "search.n: input should be greater than or equal to 1, found 0"),
        ("", ["search.n=many"], "search.n: input should be a valid integer, found 'many'"),
        ("", ["flag=1"], "flag: input should be a valid boolean, found 1"),
        ("", ["search"], "expected key=value, found 'search'"),
        ("search: 3", [], "search: "),
        ("- a", [], "expected keys and values, found list"),
        ("a: [1", [], "p.yaml:"),
        ("rate: x\nsizes: y", [], "(and 1 more)"),
        ("rate: .inf", [], "rate: input should be a finite number, found inf"),
        ("", ["rate=.nan"], "rate: input should be a finite number, found nan"),
        ("", ["out=''"], "out: needs a name, found ''"),
        ("search: &a [*a]", [], "p.yaml: not plain values"),
        ("? [a]\n: 3", [], "p.yaml: not plain values"),
        ("rate: {1: 2, '1': 3}", [], "p.yaml: not plain values"),
        ("flag: !!set {a, b}", [], "p.yaml: not plain values"),
        ("flag: true\nflag: false", [], 'p.yaml:2: found duplicate key "flag"'),
        ("", ["search={n: 1"], "search:1:"),
        ("search: {n: 1}", ["search.n.x=1"], "search.n.x: n is 1, not a group of keys"),
    ],
)
def test_bad_configs_are_refused_in_one_line(tmp_path, text, words, message):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_missing_keys_are_named_at_once():
    class Needs(JobConfig):
        a: int
        b: Search
        c: int

    with pytest.raises(ConfigError, match=r"^out, a, b: each needs a value$"):
        load_config(Needs, None, ["c=1"])
    with pytest.raises(ConfigError, match=r"^out, a: each needs a value \(and 1 more\)$"):
        load_config(Needs, None, ["c=1", "b=1"])


def test_a_preset_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"p\.yaml:1: not UTF-8: byte 0xff at column 4"):
        read_yaml(tmp_path / "p.yaml")


def test_launch_settings_and_paths_stay_out_of_the_fingerprint(tmp_path):
    config = load(tmp_path, "prompts: a.txt")
    keys = computing_keys(config)
    assert set(keys) == {"seed", "search.strategy", "search.n", "rate", "aspect", "flag", "sizes"}
    assert dict(marked(config, INPUT)) == {"prompts": Path("a.txt")}
    assert {key for key, _ in marked(config, LAUNCH)} == {"out", "workers"}


class Several(JobConfig):
    """Groups of keys by name."""

    searches: dict[str, Search] = Field({})


def test_groups_of_keys_by_name_are_walked_and_explained_as_others_are():
    config = load_config(Several, None, ["out=x", "searches.wide.n=8", "searches.deep={strategy: parm}"])
    keys = {key: value for key, value in computing_keys(config).items() if key.startswith("searches")}
    assert keys == {
        "searches.wide.strategy": "none",
        "searches.wide.n": 8,
        "searches.deep.strategy": "parm",
        "searches.deep.n": 1,
    }
    with pytest.raises(ConfigError, match=r"searches\.wide\.nn: .*'n'"):
        load_config(Several, None, ["out=x", "searches.wide.nn=8"])


def test_a_dumped_config_loads_to_the_same_config(tmp_path):
    config = load(tmp_path, "aspect: 16:9\nrate: 1e-4\nsizes: [3, 4]")
    again = tmp_path / "again.yaml"
    again.write_text(dump_yaml(config.model_dump(mode="json")))
    assert load_config(Config, again) == config


def test_files_that_ship_with_genloop_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load(tmp_path, "prompts: configs/prompts/shapes_tiny/generation_prompts.txt")
    assert config.prompts.read_text().startswith("a photo of")
    (tmp_path / "configs/prompts/shapes_tiny").mkdir(parents=True)
    (tmp_path / "configs/prompts/shapes_tiny/generation_prompts.txt").write_text("mine")
    assert load(tmp_path, "prompts: configs/prompts/shapes_tiny/generation_prompts.txt").prompts.read_text() == "mine"


TEXTS = [
    "plain/path-1.yaml",
    "16:9",
    "a: b",
    "runs/x #2",
    "null",
    "true",
    ".5",
    ".inf",
    "1e3",
    "0x1F",
    "~",
    "a:",
    "",
    "'q",
]
TEXTS += [
    "- a",
    "{a}",
    "[",
    "@x",
    "`x`",
    "%a",
    "=",
    "<<",
    "2024-01-31",
    "a\nb",
    " x ",
    "\tx",
    "---",
    "!x",
    "&a",
    "ü😀",
    '"',
]


@pytest.mark.parametrize("text", TEXTS)
def test_words_say_again_what_they_were_made_of(text):
    given = {"group": {"text": text, "none": None, "list": [text, 1], "empty": {}}, "number": 0.5, "text": text}
    found: dict = {}
    apply_words(found, list(words_of(given)))
    assert found == given
