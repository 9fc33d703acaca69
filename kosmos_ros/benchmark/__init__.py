"""What the engine and the node cost, side by side with the plain way, on this machine."""
