"""Everything that is claimed of the engine on a GPU, in one run: `python -m sluice.backend.bench.gpu`."""
