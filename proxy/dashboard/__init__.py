"""What people look at: pages, the API behind them, and what they show beyond the meter's figures."""
