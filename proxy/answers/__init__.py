"""The exact prompt cache: whole answers to identical requests, and one upstream call for requests that are twins."""
