"""Structures of proteins that nobody predicted: helices and folds of them, as PDB and mmCIF."""

import gzip
import io

import biotite.structure as biotite
import numpy as np
from biotite.structure.io.pdb import PDBFile
from biotite.structure.io.pdbx import CIFBlock, CIFCategory, CIFFile, set_structure

SIDE_CHAINS = {
    "GLY": "",
    "ALA": "CB",
    "CYS": "CB SG",
    "MET": "CB CG SD CE",
    "LYS": "CB CG CD CE NZ",
    "ASP": "CB CG OD1 OD2",
    "PHE": "CB CG CD1 CD2 CE1 CE2 CZ",
    "ARG": "CB CG CD NE CZ NH1 NH2",
}
NAMES = list(SIDE_CHAINS)


def helix(names, chain="A"):
    """An alpha helix: 1.5 Å and 100° from one alpha carbon to the next, side chains pointing outwards."""
    atoms = []
    for number, name in enumerate(names):
        turn = np.deg2rad(100 * number)
        out, up = np.array([np.cos(turn), np.sin(turn), 0]), np.array([0, 0, 1.5])
        places = {"N": 1.6 * out - 0.6 * up, "CA": 2.3 * out, "C": 1.7 * out + 0.6 * up, "O": 1.9 * out + up}
        places |= {atom: (3.8 + 1.2 * k) * out for k, atom in enumerate(SIDE_CHAINS[name].split())}
        atoms += [
            biotite.Atom(
                place + (number - len(names) / 2) * up,
                chain_id=chain,
                res_id=number + 1,
                res_name=name,
                atom_name=atom,
                element=atom[0],
            )
            for atom, place in places.items()
        ]
    return biotite.array(atoms)


def fold(residues, seed=0):
    """Helices of 20 residues, every second one upside down, side by side on a square."""
    rng = np.random.default_rng(seed)
    names = [str(each) for each in rng.choice(NAMES, residues)]
    edge = int(np.ceil(np.sqrt(residues / 20)))
    helices = []
    for number, start in enumerate(range(0, residues, 20)):
        one = helix(names[start : start + 20])
        one.coord = one.coord * (1, 1, 1 - 2 * (number % 2)) + (*(10.0 * np.array(divmod(number, edge))), 0)
        one.res_id += start
        helices.append(one)
    whole = biotite.concatenate(helices)
    whole.coord = np.round(whole.coord + np.array([5, -7, 11]), 3)
    return whole


def pdb(atoms, declared=0):
    file, text = PDBFile(), io.StringIO()
    file.set_structure(atoms)
    file.write(text)
    return (f"SEQRES   1 A {declared:4}  MET ALA\n" if declared else "") + text.getvalue() + "END\n"


def mmcif(atoms, declared=0):
    sequence = {"entity_poly_seq": CIFCategory({"num": np.arange(declared)})} if declared else {}
    file, text = CIFFile({"AF-P1": CIFBlock(sequence)}), io.StringIO()
    set_structure(file, atoms, data_block="AF-P1")
    file.write(text)
    return "# made for a test\n#\n" + text.getvalue()


FORMATS = {"pdb": pdb, "cif": mmcif}


def save(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def hetero(names, elements, residue, chain="A"):
    atoms = biotite.AtomArray(len(names))
    atoms.atom_name, atoms.element = np.array(names), np.array(elements)
    atoms.res_name[:], atoms.chain_id[:] = residue, chain
    atoms.res_id = np.arange(len(names)) + 500
    atoms.hetero[:] = True
    atoms.coord[:] = 50
    return atoms
