"""Drafts of model cards: what lies beside a model, the preprocessings that people use, and the TOML of a draft."""
