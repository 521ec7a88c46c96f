"""The experiments tab: questions that several runs answer together, begun here, followed, and their verdicts."""
