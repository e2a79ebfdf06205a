"""Reports: results as people and programs read them. One file a command."""
