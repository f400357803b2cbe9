"""Video devices of this machine: what they are and can do, and who has them open."""
