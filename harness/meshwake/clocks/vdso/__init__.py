"""Moving one process's clocks by its vDSO."""
