"""What code search is measured against, each behind the interface of `engines.Engine`."""
