"""What the pages promise exists: commands and their options, Python names, links, targets."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

import deeplab_tf as dl
from deeplab_tf.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *("docs/crf.md", "docs/masks.md", "docs/panoptic.md"),
)
README = (ROOT / "README.md").read_text("utf-8")


def code_blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_lines(text: str) -> list[str]:
    """Commands of the bash blocks: continued lines joined, `a && b` apart, comments dropped."""
    joined = "\n".join(code_blocks(text, "bash")).replace("\\\n", " ")
    parts = [part for line in joined.splitlines() for part in line.split("&&")]
    commands = [shlex.join(shlex.split(part, comments=True)) for part in parts]
    return [command for command in commands if command]


OWN = sorted(
    {
        line
        for page in PAGES
        for line in shell_lines((ROOT / page).read_text("utf-8"))
        if line.startswith("deeplab-tf ")
    }
)


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """Follows groups down to the command that is meant; returns it and its arguments."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


def check(line: str) -> None:
    """Parses one command line as click would, up to looking at the files it names."""
    command, words = resolve(shlex.split(line)[1:])
    context = click.Context(command)
    assert command.get_help(context)
    values, left_over, _ = command.make_parser(context).parse_args(words)
    assert not left_over, f"{line}: nothing takes {left_over}"
    for parameter in command.params:
        value = values.get(parameter.name)
        if parameter.required:
            assert value not in (None, ()), f"{line}: {parameter.name} is required"
        if isinstance(parameter.type, click.Choice) and value not in (None, ()):
            for choice in [value] if isinstance(value, str) else value:
                parameter.type.convert(choice, parameter, context)


@pytest.mark.parametrize("line", OWN)
def test_a_command_on_the_pages_parses(line):
    check(line)


@pytest.mark.parametrize(
    "line",
    [
        "deeplab-tf predikt photo.jpg",
        "deeplab-tf predict photo.jpg --no-such-option",
        "deeplab-tf data cook folder",
    ],
)
def test_a_command_that_does_not_exist_is_seen(line):
    with pytest.raises((AssertionError, click.UsageError)):
        check(line)


def test_the_readme_shows_every_command():
    shown = {shlex.split(line)[1] for line in OWN}
    assert set(COMMANDS) - shown == set()


@pytest.mark.parametrize("block", code_blocks(README, "python"))
def test_python_on_the_page_uses_names_that_exist(block):
    used = [
        node.attr
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "dl"
    ]
    assert used or "deeplab_tf" not in block
    assert [name for name in used if name not in dl.__all__] == []


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_on_the_pages_lead_somewhere(name):
    page = ROOT / name
    # Not in code, where `x["labels"](image)` looks like a link.
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith("https://"):
            continue
        target, _, fragment = link.partition("#")
        target = page.parent / target if target else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


def family_table() -> list[list[str]]:
    """The cells of each row of the table of systems."""
    rows = re.search(r"^\| System .*\n\|[- |]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert rows is not None
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[1].splitlines()]


def test_the_table_of_systems_has_every_class_and_preset():
    from deeplab_tf.models.presets import MODEL_CLASSES, PRESETS

    cells = [cell for row in family_table() for cell in row]
    named = set(re.findall(r"`dl\.(\w+)`", " ".join(cells)))
    assert named == set(MODEL_CLASSES)
    presets = re.findall(r"`(\w+)` and (\d+) more", " ".join(cells))
    assert all(name in PRESETS for name, _ in presets)
    assert sum(1 + int(more) for _, more in presets) == len(PRESETS)


def test_the_table_of_systems_counts_the_golden_cases():
    counts = [re.fullmatch(r"(\d+) \((\d+)\)", row[3]) for row in family_table()]
    stored = [*(ROOT / "tests" / "golden" / "data").glob("*/*.json")]
    assert all(counts) and sum(int(count[2]) for count in counts) == len(stored)
    assert all(int(count[2]) <= int(count[1]) for count in counts)


def test_pictures_on_the_page_are_small_enough_for_the_repository():
    named = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert named and all((ROOT / name).stat().st_size < 200_000 for name in named)


def test_the_make_targets_on_the_pages_exist_and_ci_runs_the_test_command():
    makefile = (ROOT / "Makefile").read_text()
    named = {
        shlex.split(line)[1]
        for page in PAGES
        for line in shell_lines((ROOT / page).read_text("utf-8"))
        if line.startswith("make ")
    }
    assert {"demo", "test"} <= named
    assert named <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")
