"""What the proxy costs, beside the alternatives, on this machine."""
