"""Names the plugins; everything else is in harness/meshwake/pytest_plugin.py."""

pytest_plugins = ["meshwake.pytest_plugin", "meshwake.pytest_plugin.short_options"]
