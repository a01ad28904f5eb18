"""Programs that the tests run in processes of their own, for a backend is named once for a whole process; each prints JSON last."""
