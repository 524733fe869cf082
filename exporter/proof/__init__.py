"""Proof: what goes in to compare, how close is close enough, and which hop broke."""
