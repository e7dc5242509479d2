"""The search for a training recipe, and the tables of trained models."""
