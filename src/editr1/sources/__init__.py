"""Where edit tasks come from: one file a layout, each with `build(**options)` that gives an iterable of `SourceRow`."""
