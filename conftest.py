"""Names the plugin; everything else is in harness/meshwake/pytest_plugin.py."""

pytest_plugins = ["meshwake.pytest_plugin"]
