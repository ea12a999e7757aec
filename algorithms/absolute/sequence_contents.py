"""What a sequence says is in the unit cell."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dials.util import Sorry
from iotbx.bioinformatics import any_sequence_format

from dials_diffuse.algorithms.absolute.formula import parse_formula
from dials_diffuse.algorithms.absolute.part import Part
from dials_diffuse.algorithms.absolute.residues import CHAINS, CUBIC_ANGSTROM_PER_DALTON, SPECIFIC_VOLUME


def sequence_parts(sequence: str, copies: float, molecule: str = "auto") -> tuple[Part, ...]:
    """Return chains of residues, neutral and without disulfide bridges.

    Parameters
    ----------
    sequence
        A file (FASTA, PIR, plain), each of whose sequences counts, or the letters themselves.
    copies
        Chains in the unit cell.
    molecule
        ``protein``, ``dna``, ``rna``, or ``auto``: DNA or RNA if all letters are of theirs, protein otherwise.

    Returns
    -------
    tuple of Part
        One for each sequence. Their volume is by partial specific volumes: 0.73 cm3/g of protein (Matthews (1968) J.
        Mol. Biol. 33, 491), 0.55 cm3/g of nucleic acids.
    """
    return tuple(_chain(name, letters, copies, molecule) for name, letters in _read(sequence))


def _read(sequence: str) -> list[tuple[str, str]]:
    if not Path(sequence).is_file():
        letters = "".join(sequence.split()).rstrip("*")
        if not letters.isalpha():
            raise Sorry(f"The sequence {sequence!r} is neither a file nor letters of residues.")
        return [("", letters.upper())]
    try:
        sequences, rejected = any_sequence_format(sequence)
    except (OSError, UnicodeDecodeError) as error:
        raise Sorry(f"The sequence file {sequence} cannot be read: {error}") from error
    if not sequences or rejected:
        raise Sorry(f"{sequence} cannot be read as a sequence: give a FASTA file.")
    return [(one.name, one.sequence.rstrip("*").upper()) for one in sequences]


def _kind(letters: str) -> str:
    for kind in ("dna", "rna"):
        if set(letters) <= set(CHAINS[kind]) - ({"U"} if kind == "dna" else set()):
            return kind
    return "protein"


def _chain(name: str, letters: str, copies: float, molecule: str) -> Part:
    kind = _kind(letters) if molecule == "auto" else molecule
    table = CHAINS[kind]
    unknown = sorted(set(letters) - set(table))
    if unknown:
        raise Sorry(
            f"The {kind} sequence {name or letters[:20]} has letters that name no residue: {', '.join(unknown)}. Put "
            "what is there, or the likeliest."
        )
    atoms: Counter[str] = Counter(H=2, O=1)  # the ends
    if kind != "protein":
        atoms.subtract(parse_formula("HPO3"))  # no phosphate at the 5' end
    for letter, count in Counter(letters).items():
        for symbol, number in parse_formula(table[letter][1]).items():
            atoms[symbol] += count * number
    numbers = {symbol: copies * number for symbol, number in atoms.items() if number}
    title = f"{kind.upper() if kind != 'protein' else kind}, {len(letters)} residues"
    specific_volume = SPECIFIC_VOLUME["protein" if kind == "protein" else "nucleic acid"]
    volume = Part(title, numbers).mass * specific_volume * CUBIC_ANGSTROM_PER_DALTON
    return Part(f"{title} ({name})" if name else title, numbers, volume)
