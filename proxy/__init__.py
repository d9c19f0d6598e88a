"""HTTP in and out: routes, upstreams, streaming, state stores, settings, the command line. Scores nothing itself."""
