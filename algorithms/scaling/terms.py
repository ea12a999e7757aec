"""All terms that a scaling model can have: the built-in ones and those of other packages."""

from __future__ import annotations

from functools import cache

from dials.util import Sorry

from dials_diffuse.algorithms.scaling.absorption_term import AbsorptionTerm
from dials_diffuse.algorithms.scaling.detector_term import DetectorTerm
from dials_diffuse.algorithms.scaling.modules_term import ModulesTerm
from dials_diffuse.algorithms.scaling.offset_term import OffsetTerm
from dials_diffuse.algorithms.scaling.scale_term import ScaleTerm
from dials_diffuse.algorithms.scaling.term import Term
from dials_diffuse.plugins import plugin_classes

#: In the order in which a model has them.
BUILT_IN = (ScaleTerm, AbsorptionTerm, OffsetTerm, DetectorTerm, ModulesTerm)

#: Entry points of this group add terms: see docs/extending.md.
PLUGIN_GROUP = "dials_diffuse.scaling_term"


@cache
def scaling_terms() -> dict[str, type[Term]]:
    """Classes of all terms by name: the built-in ones, then plug-ins in alphabetical order.

    Raises
    ------
    Sorry
        If a plug-in cannot be loaded, is not a Term with a name of its own, or takes another's name.
    """
    return plugin_classes(PLUGIN_GROUP, Term, BUILT_IN, "scaling term", _check)


def _check(which: str, term: type[Term]) -> None:
    name = getattr(term, "name", None)
    if not (isinstance(name, str) and name.isidentifier()):
        raise Sorry(f"{which} has no `name` of letters, digits and underscores.")
    if getattr(term, "role", None) not in ("outer", "inner", "offset"):
        raise Sorry(f"{which}: its `role` is not outer, inner or offset.")


def term_class(name: str) -> type[Term]:
    """The class of a term; plug-ins are loaded only for names that are not built in.

    Raises
    ------
    Sorry
        If there is none.
    """
    for term in BUILT_IN:
        if term.name == name:
            return term
    if name not in scaling_terms():
        raise Sorry(f"There is no scaling term {name} (there are {', '.join(scaling_terms())}): install its package.")
    return scaling_terms()[name]
