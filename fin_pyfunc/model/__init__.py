"""The model side: everything a logged model needs to score. It travels inside every artifact."""
