"""Chemical formulae."""

from __future__ import annotations

import re

from cctbx.eltbx import tiny_pse, xray_scattering

TOKEN = re.compile(
    r"\s*(?:(?P<open>[(\[])|(?P<close>[)\]])(?P<group_count>[\d.]*)|(?P<symbol>[A-Z][a-z]?)(?P<count>[\d.]*))"
)


def parse_formula(formula: str) -> dict[str, float]:
    """Return the atoms of a chemical formula such as ``C6 H12 O6``, ``(NH4)2SO4`` or ``Na2SO4*10H2O``.

    Counts may be fractions; parentheses nest; a number before a part that ``*`` or a raised dot sets apart counts it.

    Returns
    -------
    dict
        Number of atoms of each element.

    Raises
    ------
    ValueError
        If the formula cannot be read or names what is no element.
    """
    atoms: dict[str, float] = {}
    for term in re.split(r"[*·]", formula.strip()):
        factor, rest = re.fullmatch(r"\s*(\d+(?:\.\d+)?)?\s*(.*)", term).groups()
        for symbol, count in _parse_term(rest, formula).items():
            atoms[symbol] = atoms.get(symbol, 0.0) + float(factor or 1) * count
    return atoms


def _parse_term(term: str, formula: str) -> dict[str, float]:
    groups: list[dict[str, float]] = [{}]
    position = 0
    while position < len(term.rstrip()):
        match = TOKEN.match(term, position)
        if match is None or (match["close"] and len(groups) == 1):
            raise ValueError(f"The formula {formula!r} cannot be read at {term[position:]!r}.")
        position = match.end()
        if match["open"]:
            groups.append({})
            continue
        inner = groups.pop() if match["close"] else {element(match["symbol"]): 1.0}
        count = _count(match["group_count"] or match["count"] or "1", formula)
        for symbol, number in inner.items():
            groups[-1][symbol] = groups[-1].get(symbol, 0.0) + number * count
    if len(groups) != 1 or not groups[0]:
        raise ValueError(f"The formula {formula!r} cannot be read: it is empty or a parenthesis is open.")
    return groups[0]


def _count(text: str, formula: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"The formula {formula!r} cannot be read: {text!r} is no number.") from None


def scattering_type(symbol: str) -> str:
    """Return cctbx's label of an element or ion (``SE``: ``Se``, ``Na+``: ``Na1+``); ValueError if there is none."""
    label = xray_scattering.get_standard_label(symbol.strip(), exact=False, optional=True)
    if label is None:
        raise ValueError(f"There is no chemical element or ion {symbol!r}.")
    return label


def element(label: str) -> str:
    """Return the element of a scattering type (``O2-`` -> ``O``); deuterium stays ``D``."""
    symbol = xray_scattering.get_element_and_charge_symbols(scattering_type(label))[0] or label
    if label == "D":
        return "D"
    try:
        return tiny_pse.table(symbol, True).symbol()
    except RuntimeError as error:
        raise ValueError(f"There is no chemical element {label!r}.") from error


def charge(label: str) -> int:
    """Return the charge of a scattering type (``O2-`` -> -2)."""
    text = xray_scattering.get_element_and_charge_symbols(scattering_type(label))[1]
    return int(text[-1] + (text[:-1] or "1")) if text else 0


def mass(label: str) -> float:
    """Return the atomic mass of a scattering type in Da."""
    return tiny_pse.table(element(label)).weight()


def atomic_number(label: str) -> int:
    """Return the atomic number of a scattering type."""
    return tiny_pse.table(element(label)).atomic_number()


def formula_text(atoms: dict[str, float]) -> str:
    """Return atoms as a formula, carbon and hydrogen first, then by atomic number: ``C6 H12 O6``."""

    def order(label: str) -> tuple:
        return (label != "C", element(label) not in ("H", "D"), atomic_number(label), label)

    return " ".join(
        f"{label}{'' if atoms[label] == 1 else f'{atoms[label]:.6g}'}" for label in sorted(atoms, key=order)
    )
