"""What mkdocs does not find in docs/: front page, references, links to the rest of the tree.

A hook of mkdocs (`hooks` in mkdocs.yml). Generated pages exist in the built site alone, so they
cannot go stale. Links in the sources are relative to the repository, so they work there too. Here
a link that leaves docs/ becomes a link to the repository's host, if its target exists.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import typer.core
import typer.main
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click

from mergefront.study.cli import app
from mergefront.study.spec.schema import descriptions, sections

REPOSITORY = Path(__file__).parents[1]
# Pages made from files outside docs/.
FROM_ROOT = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_log = get_plugin_logger("mergefront")
_WORDS = {"str": "text", "float": "number", "int": "integer", "bool": "true or false"}
_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {page: (REPOSITORY / source).read_text() for page, source in FROM_ROOT.items()}
    pages |= {"reference/cli.md": command_reference(), "reference/spec.md": spec_reference()}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links between the repository's files to links between the site's pages."""
    source = FROM_ROOT.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def rewrite(match: re.Match[str]) -> str:
        opening, target, anchor, closing = match.groups(default="")
        return opening + _on_site(target, source, page.file.src_uri, config) + anchor + closing

    return _LINK.sub(rewrite, markdown)


def _on_site(target: str, source: str, page: str, config: MkDocsConfig) -> str:
    """Return a link's target as `page` must write it.

    Args:
        target: As the source has it, relative to the source.
        source: The file that holds the link, relative to the repository.
        page: The page made of it, relative to docs/.
        config: Names the repository's host.
    """
    if "://" in target or target.startswith("mailto:") or page.startswith("reference/"):
        return target
    path = normpath(str(PurePosixPath(source).parent / target))
    pages = {root: name for name, root in FROM_ROOT.items()}
    inside = pages.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else "")
    if inside:
        return relpath(inside, str(PurePosixPath(page).parent))
    if not (REPOSITORY / path).exists():
        _log.warning("%s links to '%s', which does not exist.", source, target)
    return f"{config.repo_url}/blob/main/{path}"


def command_reference() -> str:
    """Return the page of all commands, from the application itself."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    context = typer.Context(group, info_name="mergefront")
    text = get_docs_for_click(obj=group, ctx=context, name="mergefront", title="Commands")
    introduction = "Generated from the application. What to use when: [Commands](../commands.md)."
    text = text.replace("# Commands\n", f"# Command line\n\n{introduction}\n", 1)
    summaries = {
        name: (command.help or "").partition("\n")[0] for name, command in group.commands.items()
    }
    for name, summary in summaries.items():
        text = re.sub(
            rf"^\* `{name}`: .*$",
            f"* [`{name}`](#mergefront-{name}): {summary}",
            text,
            flags=re.MULTILINE,
        )
    text = re.sub(r"^Example: (.*)$", r"**Example**: `\1`", text, flags=re.MULTILINE)
    return text.replace("`{SPEC}`", "`SPEC`").replace("{SPEC}", "SPEC")


def spec_reference() -> str:
    """Return the page of all sections and keys of a spec, from its models."""
    parts = [
        "# Keys of the spec\n",
        "Generated from the models that read a spec. A commented example, metrics and rules are "
        "in [The study spec](../spec.md); editors read the same keys from "
        "`examples/spec.schema.json`.\n",
    ]
    for place, model in sections().items():
        title = f"`{place}`" if place else "Top level"
        summary = (model.__doc__ or "").partition("\n")[0]
        parts += [f"## {title}\n", f"{summary}\n", "| key | type | default | meaning |"]
        parts += ["|---|---|---|---|"]
        meaning = descriptions(model)
        for key, field in model.model_fields.items():
            if key != "folder":
                parts.append(_row(key, field, meaning.get(key, "")))
        parts.append("")
    return "\n".join(parts)


def _row(key: str, field: FieldInfo, meaning: str) -> str:
    return f"| `{key}` | {_kind(field.annotation)} | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its section's"
    return f"`{yaml.safe_dump(TypeAdapter(Any).dump_python(value, mode='json')).splitlines()[0]}`"


def _kind(annotation: Any) -> str:
    """Say in words what values an annotation allows."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in parts)
    if origin in {Union, UnionType}:
        return " or ".join(_kind(part) for part in parts if part is not NoneType)
    if origin is dict:
        return "mapping"
    if origin is tuple:
        return f"list of {len(parts)}"
    if origin is list:
        return f"list of {_kind(parts[0])}"
    if issubclass(annotation, BaseModel):
        return "section"
    return _WORDS.get(annotation.__name__, str(annotation.__name__))
