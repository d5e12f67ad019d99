"""What each command is asked to do: torch-free dataclasses, every value checked before anything is loaded."""
