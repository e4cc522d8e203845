"""Other libraries' folders, read and written."""
