"""``deepgps reproduce``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from deepgps.cli.console import ProgressBar

if TYPE_CHECKING:
    from deepgps.reproduction.steps import Sources

_Flag = Annotated[bool, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where the data are fetched from.

    Parameters
    ----------
    opencell_bucket
        Base address of OpenCell's images.
    opencell_portal
        Base address of OpenCell's tables.
    hpa
        Base address of the Human Protein Atlas's table and XMLs.
    hpa_images
        Base address of the Human Protein Atlas's images.
    alphafold
        Base address of AlphaFold DB.
    uniprot
        Base address of UniProt.
    """

    opencell_bucket: Annotated[str, Parameter(env_var="DEEPGPS_OPENCELL_BUCKET")] = (
        "https://czb-opencell.s3.us-west-2.amazonaws.com"
    )
    opencell_portal: Annotated[str, Parameter(env_var="DEEPGPS_OPENCELL_PORTAL")] = (
        "https://opencell.czbiohub.org/data/datasets"
    )
    hpa: Annotated[str, Parameter(env_var="DEEPGPS_HPA_URL")] = "https://www.proteinatlas.org"
    hpa_images: Annotated[str, Parameter(env_var="DEEPGPS_HPA_IMAGES_URL")] = (
        "https://images.proteinatlas.org"
    )
    alphafold: Annotated[str, Parameter(env_var="DEEPGPS_ALPHAFOLD_URL")] = "https://alphafold.ebi.ac.uk"
    uniprot: Annotated[str, Parameter(env_var="DEEPGPS_UNIPROT_URL")] = "https://rest.uniprot.org"

    def sources(self) -> "Sources":
        """The addresses, checked."""
        from deepgps.cli.fetch import base_url
        from deepgps.reproduction.steps import Sources

        return Sources(
            base_url(self.opencell_bucket),
            base_url(self.opencell_portal),
            base_url(self.hpa),
            base_url(self.hpa_images),
            base_url(self.alphafold),
            base_url(self.uniprot),
        )


def reproduce_command(
    *,
    data: Path,
    out: Path,
    scale: Literal["small", "paper"] = "small",
    exact: _Flag = False,
    encoder: str | None = None,
    estimate: _Flag = False,
    servers: Servers = Servers(),
) -> None:
    """Reproduce the paper: fetch, annotate, prepare, split, embed, train, evaluate, report.

    Parameters
    ----------
    data
        Folder of the sources and crop stores; created if missing.
    out
        Folder of the runs, models, evaluations and the report; created if missing.
    scale
        ``small``: some proteins, small networks, three epochs, to see every step. ``paper``: all of it.
    exact
        Train as the paper's code does, by the recipe ``paper-exact``.
    encoder
        Encoder of the sequences; hand-made features at scale small, ESM2-650M at scale paper.
    estimate
        Print what it would take, and stop.
    """
    from deepgps.datasets.fetch.download import Client
    from deepgps.reproduction.estimate import check_disk, estimate_lines
    from deepgps.reproduction.estimate import estimate as estimated
    from deepgps.reproduction.steps import Reproduction, reproduce

    reproduction = Reproduction(data, out, servers.sources(), scale, exact, encoder)
    takes = estimated(reproduction)
    print("\n".join(estimate_lines(takes)), flush=True)
    check_disk(reproduction, takes)
    if estimate:
        return
    with ProgressBar("reproduction", megabytes=True) as progress:
        progress.resumable = True
        print(reproduce(reproduction, Client(on_wait=progress.print_some), progress))
