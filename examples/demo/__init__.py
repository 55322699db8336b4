"""The embedded pair, its task, and the script that trains it."""

from pathlib import Path

BASE = Path(__file__).parent / "base"
EXPERT = Path(__file__).parent / "expert"
QUESTIONS = Path(__file__).parent / "questions"

__all__ = ["BASE", "EXPERT", "QUESTIONS"]
