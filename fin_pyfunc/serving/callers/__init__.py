"""Who calls: API keys, JWT, and what either is allowed."""
