"""The report as pages that open offline, from one folder: a page for each run, a comparison of two,
a summary."""
