"""``vrft knowledge``: list, show and check cards."""

from pathlib import Path
from typing import Annotated

import typer

from vrft.extras import need

app = typer.Typer(help="Cards: what each class of a data set looks like, and who says so.", no_args_is_help=True)


@app.command("list")
def list_cards() -> None:
    """Print the cards that are shipped."""
    from vrft.knowledge import card_names, read_card

    for name in card_names():
        card = read_card(name)
        typer.echo(f"{name:26} {len(card.classes):3} classes  {card.title}")


@app.command()
def show(card: Annotated[str, typer.Argument(help="The name of a shipped card, or a file.")]) -> None:
    """Print a card as a reader sees it: the classes, the sources, who wrote it and who checked it."""
    from vrft.cli.terminal import card_text
    from vrft.knowledge import read_card

    typer.echo(card_text(read_card(card)))


@app.command()
def write(
    name: Annotated[str, typer.Argument(help="Of the card.")],
    model: Annotated[str, typer.Option(help="As the endpoint names it; with --local a directory or a hub name.")],
    title: Annotated[str, typer.Option(help="What the images show.")],
    modality: Annotated[str, typer.Option(help="How they were taken.")],
    labels: Annotated[list[str] | None, typer.Option("--labels", "--label", help="A class; repeat it.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Take the classes from the data of this recipe.")] = None,
    url: Annotated[str, typer.Option(help="Of an OpenAI-compatible endpoint.")] = "http://localhost:8000/v1",
    key: Annotated[str, typer.Option(envvar="VRFT_LLM_KEY", help="Of the endpoint, where it wants one.")] = "",
    local: Annotated[bool, typer.Option("--local", help="Run the model here, with transformers.")] = False,
    out: Annotated[Path, typer.Option(help="The folder for the card, the prompt and the replies.")] = Path("cards"),
    licence: Annotated[str, typer.Option(help="Of the card.")] = "CC0-1.0",
    timeout: Annotated[float, typer.Option(help="Seconds for one reply.")] = 120.0,
    retries: Annotated[int, typer.Option(min=0, help="After time-outs, rate limits and faults of the server.")] = 4,
) -> None:
    """Have a language model write a card, which stays unchecked until a person signs it."""
    from vrft.errors import UserError
    from vrft.knowledge.write import CardRequest, endpoint, write_card

    classes = list(labels or ()) or (_data_of(recipe)[0] if recipe else [])
    if not classes:
        raise UserError("which classes? give --label for each, or --recipe.")
    if local:
        need("vrft knowledge write --local")
        from vrft.policies.texts import local_model

        ask = local_model(model)
    else:
        ask = endpoint(model, url, key=key, timeout=timeout, retries=retries)
    path = write_card(ask, CardRequest(title, modality, classes), out / f"{name}.yaml", model=model, licence=licence)
    typer.echo(f"{path}: read it, mend it, and sign it with checked_by.")


@app.command()
def check(
    cards: Annotated[list[str], typer.Argument(help="Names of shipped cards, or files.")],
    recipe: Annotated[Path | None, typer.Option(help="Also compare the card with the data of this recipe.")] = None,
) -> None:
    """Say what is wrong with cards; the exit code is 2 where anything is."""
    from vrft.errors import Fault, KnowledgeError
    from vrft.knowledge import check_against, read_card

    data = _data_of(recipe) if recipe else None
    faults: list[Fault] = []
    for name in cards:
        try:
            card = read_card(name)
            if data is not None:
                check_against(card, name, *data)
        except KnowledgeError as error:
            faults += error.faults
            continue
        signed = f"checked by {card.checked_by.by}" if card.checked_by else "not checked by a person yet"
        typer.echo(f"{name}: {len(card.classes)} classes, {len(card.sources)} sources, {signed}.")
    if faults:
        raise KnowledgeError(faults)


def _data_of(path: Path) -> tuple[list[str], list[str]]:
    """The classes or grades of a recipe's data, and the ids of all its samples."""
    from vrft.errors import UserError
    from vrft.recipe import known_classes, names_of_samples, open_source, read_recipe

    # What the card is for may not fit yet, so the data and the task are all that is read of the recipe.
    source = open_source(read_recipe(path, ["knowledge=null", "arms=[base]", "stages=[{kind: sft}]", "custom={}"]))
    classes = known_classes(source)
    if not classes:
        raise UserError(f"{path}: its data have neither classes nor grades that a card could describe.")
    return classes, list(names_of_samples(source))
