"""Fits that workers have and this machine lacks, by what the workers declare of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from cluster.protocol import FitDeclaration, WorkerRegistration
from fitting import fits, foreign
from fitting.errors import InvalidSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ForeignFit:
    """A fit that validates and cannot be run here, and the declaration that it is made of."""

    fit: fits.Fit
    declaration: FitDeclaration


def fit_of(declaration: FitDeclaration) -> fits.Fit:
    """Return the fit that a sheet was made with, whatever is installed here by now."""
    return foreign.declared(declaration.facts, frozenset())


def foreign_fits(cards: Iterable[WorkerRegistration]) -> dict[str, ForeignFit]:
    """Return the fits that workers declare, by name; of several versions that of the worker which came last. What is installed here goes first."""
    found: dict[str, ForeignFit] = {}
    taken = fits.taken()
    for declaration in _declarations(cards):
        try:
            fit = foreign.declared(declaration.facts, taken)
        except InvalidSettings as error:
            logger.debug("%s: %s", declaration.identity, error)
            continue
        names = {name.lower() for name in (fit.name, *fit.aliases)}
        if declaration.identity.startswith(f"{fit.name} (") and not names & _names(found):
            found[fit.name] = ForeignFit(fit, declaration)
    return found


def _declarations(cards: Iterable[WorkerRegistration]) -> list[FitDeclaration]:
    """Those of the newest worker first, each identity once."""
    told: dict[str, FitDeclaration] = {}
    for card in reversed(list(cards)):
        for declaration in card.declared:
            if declaration.identity in card.fits:
                told.setdefault(declaration.identity, declaration)
    return list(told.values())


def _names(found: dict[str, ForeignFit]) -> set[str]:
    return {name.lower() for one in found.values() for name in (one.fit.name, *one.fit.aliases)}
