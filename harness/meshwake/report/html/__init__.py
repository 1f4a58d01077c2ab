"""The report as pages that open offline, from one folder: a page a run, two runs beside one
another, a summary."""
