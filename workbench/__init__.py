"""The browser application over run folders: `python -m workbench`."""
