"""Small tools of the house. Nothing here is public."""
