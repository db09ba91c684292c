"""The embedded world: small scenes whose truth can be measured, and tiny checkpoints of the real classes."""
