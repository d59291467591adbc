"""Composition roots, one file a job: read the run file, build, run, report."""
