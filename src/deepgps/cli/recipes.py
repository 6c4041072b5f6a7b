"""``deepgps recipes``."""


def recipes(name: str | None = None, /) -> None:
    """List the recipes of the package, or print one in full.

    Parameters
    ----------
    name
        Name of a recipe, or a YAML file: every field is printed with its value and meaning,
        ready to be saved and changed.
    """
    from deepgps.training.recipe import recipe_table, recipe_text

    if name is not None:
        print(recipe_text(name), end="")
        return
    rows = [("recipe", "classes", "inputs", "purpose"), *recipe_table()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
