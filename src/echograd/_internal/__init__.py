"""Private tools that all packages share."""
