"""Arguments that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipePath = Annotated[Path, typer.Argument(help="A TOML recipe, as in export/recipes/.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the recipe.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
