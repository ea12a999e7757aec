"""Correction from files to files, in whatever form the observations are."""

from __future__ import annotations

import json
from dataclasses import replace

import libtbx.phil

from dials_diffuse.algorithms.correction.combined import CombinedCorrection
from dials_diffuse.algorithms.correction.correct import correct, report
from dials_diffuse.algorithms.correction.partitions import correct_partitions
from dials_diffuse.dataset import Dataset
from dials_diffuse.partitioned_table import PartitionedTable
from dials_diffuse.provenance import ProcessRecord
from dials_diffuse.work_folder import folder_for


def correct_to_files(
    dataset: Dataset,
    params: libtbx.phil.scope_extract,
    record: ProcessRecord,
    expt: str,
    refl: str,
    summary: str,
) -> list[str]:
    """Correct a data set and write it.

    One in partitions is corrected partition by partition; where ``refl`` ends with ``.parts`` such a run, if it was
    interrupted, goes on from its finished partitions.

    Parameters
    ----------
    dataset : Dataset
        As extracted. Changed in place if it is in memory.
    params : libtbx.phil.scope_extract
        Of ``dials.diffuse_correct``.
    record : ProcessRecord
        Of this run.
    expt, refl, summary : str
        The files; the last for :func:`dials_diffuse.algorithms.correction.correct.report`.

    Returns
    -------
    list of str
        Names of the files.
    """
    if not isinstance(dataset.observations, PartitionedTable):
        corrections = CombinedCorrection(params.correction)
        correct(dataset, params, corrections)
        return dataset.write(expt, refl, {summary: json.dumps(report(dataset, corrections), indent=1)})
    with folder_for(refl, record) as work:
        table, content = correct_partitions(dataset, params, work)
        corrected = replace(dataset, observations=table)
        return corrected.write(expt, refl, {summary: json.dumps(content, indent=1)}, work=work)
