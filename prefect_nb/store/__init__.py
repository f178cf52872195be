"""Where the history lives: SQLite in a home directory, or memory."""
