"""Sweeps: jobs in processes of their own, a record of what each came to, and the table at the end."""
