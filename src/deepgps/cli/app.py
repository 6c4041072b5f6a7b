"""The table of commands, and how errors are shown.

Exit codes: 0; 3 if some records cannot be used, and the others were; 2 if nothing can be used, or for wrong
usage; 1 for a failure; 130 when interrupted.
"""

import os
import sys
from collections.abc import Iterator, Sequence

from cyclopts import App, CycloptsError

from deepgps import __version__
from deepgps.cli.evaluate import evaluate_command
from deepgps.errors import DeepGPSError, InputError, MissingExtraError

# The extra that installs a package.
_EXTRA_OF = dict.fromkeys(
    (
        *("lightning", "onnx", "onnxscript", "polars", "requests", "safetensors", "sklearn", "torch"),
        *("tensorboard", "transformers", "yaml"),
    ),
    "train",
) | dict.fromkeys(("dask", "distributed", "zarr"), "scale")
_EXTRA_OF |= {"xlsxwriter": "xlsx", "anndata": "anndata", "pandas": "anndata"}
_EXTRA_OF |= dict.fromkeys(
    (
        *("alembic", "fastapi", "fastapi_offline", "fsspec", "jinja2", "pydantic_settings"),
        *("python_multipart", "sqlalchemy", "uvicorn"),
    ),
    "web",
) | dict.fromkeys(("psycopg", "s3fs"), "web-cluster")

app = App(
    name="deepgps",
    help="Where in the cell does this protein go? A label with probabilities, and an image.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
models_app = App(name="models", help="Show the installed models.")
nuclei_app = App(name="nuclei", help="Show the nuclei that deepGPS can draw into.")
submissions_app = App(name="submissions", help="Moderate what was submitted to a website (extra 'web').")
encoders_app = App(name="encoders", help="Protein language models, ready to predict with.")
data_app = App(name="data", help="Build datasets: fetch, annotate, prepare, split (extra 'train').")
fetch_app = App(name="fetch", help="Fetch tables, images, structures and sequences from their sources.")
annotate_app = App(name="annotate", help="Label proteins from the tables of a source.")
evaluate_app = App(
    name="evaluate", help="Evaluate a model: metrics beside baselines, a report (extra 'train')."
)

app.command(
    "deepgps.cli.predict:predict",
    name="predict",
    usage="Usage: deepgps predict INPUT... [OPTIONS]",
    help="Predict where proteins go: labels, images and a report.\n\n"
    "Running the same command again continues an unfinished run. Exit codes: 0; 3 if some records could not "
    "be used (see rejected.csv; the rest is predicted); 2 if none could; 1 for a failure.",
)
app.command(
    "deepgps.cli.explain:explain",
    name="explain",
    usage="Usage: deepgps explain INPUT... [OPTIONS]",
    help="Explain predictions: important residues and sorting signals.\n\n"
    "Exit codes: 0; 3 if some records could not be used (see rejected.csv; the rest is explained); 2 if none "
    "could; 1 for a failure.",
)
app.command(
    "deepgps.cli.explain:variants",
    name="variants",
    usage="Usage: deepgps variants PROTEIN CHANGE... [OPTIONS]",
    help="Compare changed sequences with the unchanged one.\n\n"
    "Exit codes: 0; 3 if some rows of a table could not be used (see variants.csv); 2 if none could; 1 for a "
    "failure.",
)
app.command(
    "deepgps.cli.atlas:atlas",
    name="atlas",
    usage="Usage: deepgps atlas PROTEINS... --out SITE [OPTIONS]",
    help="Build a static website of many proteins.\n\n"
    "Running it again, with more proteins, another nucleus or a newer model, computes only what changed. "
    "Exit codes: 0; 3 if some records could not be used (the rest is in the atlas); 2 if none could; 1 for a "
    "failure.",
)
app.command(models_app)
app.command(nuclei_app)
app.command("deepgps.cli.recipes:recipes", name="recipes", help="List the recipes, or print one in full.")
app.command(
    "deepgps.cli.web:serve", name="serve", help="Serve the openGPS website on this machine (extra 'web')."
)
app.command(
    "deepgps.cli.web:worker", name="worker", help="Run a further worker for an openGPS website (extra 'web')."
)
app.command(submissions_app)
submissions_app.command(
    "deepgps.cli.submissions:list_submissions", name="list", help="List submitted images."
)
submissions_app.command("deepgps.cli.submissions:accept", name="accept", help="Accept images.")
submissions_app.command("deepgps.cli.submissions:reject", name="reject", help="Reject images.")
submissions_app.command(
    "deepgps.cli.submissions:export_submissions",
    name="export",
    help="Write the accepted images to a crop store (extra 'train', too).",
)
app.command("deepgps.cli.train:train", name="train", help="Train a model (extra 'train').")
app.command(
    "deepgps.cli.train:finetune",
    name="finetune",
    help="Continue training a model on your own crops (extra 'train').",
)
app.command("deepgps.cli.train:export", name="export", help="Export a trained model (extra 'train').")
app.command(
    "deepgps.cli.compare:compare",
    name="compare",
    usage="Usage: deepgps compare TABLE [PEER...] [OPTIONS]",
    help="Compare labels with those of other tools on the same proteins (extra 'train').",
)
app.command(
    "deepgps.cli.compare_cells:compare_cells_command",
    name="compare-cells",
    usage="Usage: deepgps compare-cells INPUT... --model A --model B [OPTIONS]",
    help="Compare the models of several cell lines on the same proteins.\n\n"
    "Running the same command again continues an unfinished run. Exit codes: 0; 3 if some records could not "
    "be used (see rejected.csv; the rest is compared); 2 if none could; 1 for a failure.",
)
app.command(
    "deepgps.cli.reproduce:reproduce_command",
    name="reproduce",
    help="Reproduce the paper: from its sources to its tables (extra 'train').\n\n"
    "Running the same command again continues an unfinished reproduction.",
)
app.command(evaluate_app)
evaluate_app.default(evaluate_command)
evaluate_app.command(
    "deepgps.cli.evaluate:cross", name="cross", help="Draw several proteins into each of several nuclei."
)
evaluate_app.command(
    "deepgps.cli.evaluate:images",
    name="images",
    help="Measure the images of any model beside true ones.",
)
models_app.command("deepgps.cli.models:list_models_command", name="list", help="List the installed models.")
models_app.command(
    "deepgps.cli.models:info", name="info", help="Show one model: classes, quality, data, licence."
)
models_app.command(
    "deepgps.cli.models:package",
    name="package",
    help="Write a model for the Hugging Face Hub or the BioImage Model Zoo.",
)
nuclei_app.command("deepgps.cli.nuclei:list_nuclei_command", name="list", help="List the default nuclei.")
app.command(
    "deepgps.cli.embed:embed", name="embed", help="Embed proteins with a language model (extra 'train')."
)
app.command(encoders_app)
encoders_app.command(
    "deepgps.cli.embed:prepare_encoder_command",
    name="prepare",
    help="Convert an encoder to ONNX for prediction (extra 'train').",
)
encoders_app.command("deepgps.cli.embed:list_prepared", name="list", help="List the prepared encoders.")
app.command(data_app)
data_app.command(fetch_app)
fetch_app.command(
    "deepgps.cli.fetch:fetch_opencell_command", name="opencell", help="Fetch OpenCell's tables and images."
)
fetch_app.command(
    "deepgps.cli.fetch:fetch_hpa_command",
    name="hpa",
    help="Fetch the Human Protein Atlas's tables and images.",
)
fetch_app.command(
    "deepgps.cli.fetch:fetch_structures_command",
    name="structures",
    help="Fetch structures from AlphaFold DB.",
)
fetch_app.command(
    "deepgps.cli.fetch:fetch_sequences_command", name="sequences", help="Fetch sequences from UniProt."
)
fetch_app.command(
    "deepgps.cli.fetch:fetch_human_command",
    name="human",
    help="Fetch the human proteome, to resolve names offline.",
)
data_app.command("deepgps.cli.prepare:segment", name="segment", help="Find nuclei: images to label images.")
data_app.command("deepgps.cli.prepare:prepare", name="prepare", help="Cut fields into crops: a crop store.")
data_app.command("deepgps.cli.prepare:show", name="show", help="Draw a contact sheet of a crop store.")
data_app.command("deepgps.cli.prepare:check", name="check", help="Check every byte of a crop store.")
data_app.command(annotate_app)
annotate_app.command(
    "deepgps.cli.data:annotate_opencell_command", name="opencell", help="Label OpenCell's proteins."
)
annotate_app.command(
    "deepgps.cli.data:annotate_hpa_command", name="hpa", help="Label the Human Protein Atlas's proteins."
)
data_app.command(
    "deepgps.cli.data:records_command",
    name="records",
    help="Turn a manifest into records for deepgps predict --records.",
)
data_app.command(
    "deepgps.cli.data:split", name="split", help="Split proteins into train, validation and test."
)


def run(tokens: Sequence[str]) -> int:
    """Run a command of ``deepgps``; return the exit code."""
    return run_app(app, tokens)


def run_app(commands: App, tokens: Sequence[str]) -> int:
    """Run a command of a table of commands.

    Returns
    -------
    int
        The exit code.
    """
    try:
        result = commands(list(tokens), exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError:
        return 2
    except KeyboardInterrupt:
        _print_error("Interrupted.")
        return 130
    except BrokenPipeError:
        # The reader of stdout is gone; without this, Python prints another error on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (DeepGPSError, OSError, ImportError, MemoryError) as error:
        return _fail(error)
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        return _fail(MemoryError())
    return result if isinstance(result, int) else 0


def _fail(error: Exception) -> int:
    if isinstance(error, ImportError):
        error = _missing_extra(error)
    _print_error(_sentence(error))
    return 2 if isinstance(error, InputError) else 1


def _sentence(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "There is too little memory; close other programs, or use a machine with more."
    if isinstance(error, ImportError):
        return f"A library cannot be loaded ({error}); there may be too little memory, or install it again."
    if isinstance(error, OSError) and error.strerror:
        where = f" '{error.filename}'" if error.filename else ""
        return f"Cannot read or write{where}: {error.strerror}."
    return str(error)


def _missing_extra(error: ImportError) -> Exception:
    for cause in _chain(error):
        extra = _EXTRA_OF.get((getattr(cause, "name", None) or "").partition(".")[0])
        if isinstance(cause, ModuleNotFoundError) and extra:
            return MissingExtraError(
                f"This command needs '{cause.name}', which is not installed: pip install 'deepgps[{extra}]'."
            )
    if isinstance(error, ModuleNotFoundError):
        raise error
    # A shared library that could not be mapped into memory, for instance.
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _print_error(text: str) -> None:
    print(f"deepgps: {text}", file=sys.stderr)
