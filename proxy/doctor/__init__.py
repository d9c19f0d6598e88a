"""`sluice doctor`: what is installed, configured and reachable; what is wrong, and how to mend it."""
