"""What a person waits for: the page's start, its clicks, the first step of a training."""
