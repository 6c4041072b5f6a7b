"""An atlas of many proteins: a static website that opens from a folder and from any static host.

`build_atlas` predicts each protein once and keeps the answer in the site's folder, under a hash of all that
it depends on; tables, pages, index and map are written from these answers. A later call, with more proteins,
another nucleus or a newer model, predicts and draws only what changed.
"""

from deepgps.atlas.build import AtlasSummary, build_atlas

__all__ = ["AtlasSummary", "build_atlas"]
