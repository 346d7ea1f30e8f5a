"""Result files: what a finished job leaves on disk."""
