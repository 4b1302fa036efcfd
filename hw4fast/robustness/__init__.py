"""What breaks a model: `study` measures it and writes the page."""
