"""What runs sagas: those in memory, the way there and back, and the scans that find the others."""
