"""The homework's experiments and theory, its numbers beside ours."""
