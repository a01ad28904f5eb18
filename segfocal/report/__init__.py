"""What people look at: the table at the end, pictures, the files that hold the numbers."""
