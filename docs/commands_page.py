"""Print the page of all commands, from the command line's own table: what `lowbit COMMAND --help` says, with links.

python docs/commands_page.py > docs/reference/commands.md
"""

from collections.abc import Sequence
from typing import Any

import typer

from lowbit.cli import app


def rows(parameters: Sequence[Any], context: typer.Context) -> list[str]:
    """A row for each option or argument."""
    records = [each.get_help_record(context) for each in parameters]
    return [f"| `{name}` | {cell(text)} |" for name, text in filter(None, records)]


def cell(text: str) -> str:
    """The text as it can stand in a table of Markdown."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def main() -> None:
    """Print it."""
    group: Any = typer.main.get_command(app)
    with typer.Context(group, info_name="lowbit") as context:
        print("# Commands\n")
        print("What `lowbit COMMAND --help` says. [Options that need more than a line](../options.md) has the rest.\n")
        print("| for all commands, before the name | meaning |\n|---|---|")
        print("\n".join(rows(group.params, context)))
        for name, command in group.commands.items():
            with typer.Context(command, info_name=name, parent=context) as inner:
                command.get_help(inner)  # puts the rows of tables into the texts
                usage = " ".join(command.collect_usage_pieces(inner))
                print(f"\n## lowbit {name}\n\n{(command.help or '').strip()}\n\n```text\nlowbit {name} {usage}\n```\n")
                print("| argument or option | meaning |\n|---|---|")
                print("\n".join(rows(command.get_params(inner), inner)))


if __name__ == "__main__":
    main()
