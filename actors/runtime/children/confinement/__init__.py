"""What confines a child: its view of the files, its privileges, and what it may ask of the kernel."""
