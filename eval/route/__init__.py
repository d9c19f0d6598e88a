"""`sluice eval route`: how routers spread recorded conversations over replicas, simulated."""
