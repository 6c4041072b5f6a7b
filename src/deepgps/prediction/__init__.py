"""Encoding: how proteins become what a bundle's encoder graph takes, and what it says of them.

`deepgps.prediction.encoder.Encoder` is the way in. `inputs` holds one protein on its way; `sequences` and
`structures` make it, each of its own part of the protein.
"""
