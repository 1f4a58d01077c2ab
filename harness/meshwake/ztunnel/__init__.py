"""Facts of the system under test, once each."""
