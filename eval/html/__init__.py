"""The report as one HTML file that needs nothing beside it: plots as inline SVG, tables that can be copied."""
