"""Hidden Markov models of targeting peptides: how likely a terminus is, and where it is cut."""

from dataclasses import dataclass

import numpy as np

from deepgps.arrays import Doubles, Ints

_BATCH = 500


@dataclass(frozen=True, slots=True, eq=False)
class MarkovModel:
    """A hidden Markov model over the residues of an N-terminus.

    Attributes
    ----------
    start
        (S,) probability of each state at the first residue.
    transitions
        (S, S) probability of the next state, by row.
    emissions
        (S, 21) probability of each residue code of `deepgps.proteins.features.residue_codes`.
    length
        Residues that the model reads.
    cuts
        States of the first residue after a cleavage site; none for a model without one.
    """

    start: Doubles
    transitions: Doubles
    emissions: Doubles
    length: int
    cuts: tuple[int, ...] = ()

    def log_likelihoods(self, codes: Ints) -> Doubles:
        """Compute the log-likelihood of termini.

        Parameters
        ----------
        codes
            (B, L) residue codes; code 20, an unknown residue, stands for what lies beyond the end.

        Returns
        -------
        Doubles
            (B,) in nats.
        """
        return np.concatenate([self._forward(codes[at : at + _BATCH])[1] for at in _starts(codes)])

    def cut_probabilities(self, codes: Ints) -> Doubles:
        """Compute where termini are cut.

        Parameters
        ----------
        codes
            (B, L) residue codes, as in `log_likelihoods`.

        Returns
        -------
        Doubles
            (cuts, B, L) probability that the residue is the first one after the cleavage site.
        """
        return np.concatenate([self._posterior(codes[at : at + _BATCH]) for at in _starts(codes)], axis=1)

    def _forward(self, codes: Ints) -> tuple[Doubles, Doubles, Doubles, Doubles]:
        """Return scaled forward probabilities (L, B, S), log-likelihoods, emissions (L, B, S) and scales."""
        seen = self.emissions.T[codes.T]
        forward, scales = np.empty_like(seen), np.empty(seen.shape[:2])
        here = self.start * seen[0]
        for place in range(len(seen)):
            if place:
                here = (here @ self.transitions) * seen[place]
            scales[place] = here.sum(1)
            here = here / scales[place][:, None]
            forward[place] = here
        return forward, np.log(scales).sum(0), seen, scales

    def _posterior(self, codes: Ints) -> Doubles:
        forward, _, seen, scales = self._forward(codes)
        found = np.empty((len(self.cuts), codes.shape[0], codes.shape[1]))
        cuts, backward = list(self.cuts), np.ones_like(forward[0])
        for place in range(len(seen) - 1, -1, -1):
            found[:, :, place] = (forward[place] * backward)[:, cuts].T
            backward = ((backward * seen[place]) @ self.transitions.T) / scales[place][:, None]
        return found


def _starts(codes: Ints) -> range:
    return range(0, len(codes), _BATCH)
