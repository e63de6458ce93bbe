"""What `fss doctor` looks at. Imports nothing heavy on its own: PyTorch may be what is broken."""
